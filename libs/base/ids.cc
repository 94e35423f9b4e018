#include "libs/base/ids.h"

#include <openssl/rand.h>
#include <openssl/sha.h>

#include <cstdint>
#include <cstdlib>

#include "absl/strings/escaping.h"
#include "libs/base/sv.h"

namespace poststelle {
namespace {

constexpr size_t kIdLength = 26;

std::string Base32(std::string_view bytes) {
  static constexpr char kAlphabet[] = "abcdefghijklmnopqrstuvwxyz234567";
  std::string out;
  uint32_t buffer = 0;
  int bits = 0;
  for (unsigned char c : bytes) {
    buffer = (buffer << 8) | c;
    bits += 8;
    while (bits >= 5 && out.size() < kIdLength) {
      bits -= 5;
      out.push_back(kAlphabet[(buffer >> bits) & 31]);
    }
    buffer &= (1u << bits) - 1;
  }
  return out;
}

}  // namespace

std::string Sha256(std::string_view bytes) {
  std::string out(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
         reinterpret_cast<unsigned char*>(out.data()));
  return out;
}

std::string Hex(std::string_view bytes) { return absl::BytesToHexString(Av(bytes)); }

std::string RandomId() {
  std::string bytes(17, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(bytes.size())) != 1) std::abort();
  return Base32(bytes);
}

std::string DerivedId(std::string_view kind, std::string_view identity) {
  std::string input(kind);
  input.push_back('\0');
  input.append(identity);
  return Base32(Sha256(input));
}

}  // namespace poststelle
