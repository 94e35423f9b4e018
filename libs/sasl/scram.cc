#include "libs/sasl/scram.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "libs/base/ids.h"
#include "libs/base/sv.h"

namespace poststelle::sasl {
namespace {

constexpr size_t kHash = 32;
constexpr char kHeader[] = "n,,";      // no channel binding, nobody else's name
constexpr char kBinding[] = "c=biws";  // the header in base64

std::string Hmac(std::string_view key, std::string_view text) {
  std::string out(kHash, '\0');
  unsigned int size = kHash;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char*>(text.data()),
       text.size(), reinterpret_cast<unsigned char*>(out.data()), &size);
  return out;
}

bool Printable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c <= 0x7E; });
}

absl::Status Broken(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("the server's SCRAM message ", what));
}

}  // namespace

bool ScramSha256::CanUse(std::string_view login, const SecretString& password) {
  return Printable(login) && Printable(password.Reveal());
}

ScramSha256::ScramSha256(std::string_view login, SecretString password, std::string_view nonce)
    : bare_(absl::StrCat("n=", absl::StrReplaceAll(Av(login), {{"=", "=3D"}, {",", "=2C"}}), ",r=", Av(nonce))),
      password_(std::move(password)),
      nonce_(nonce) {}

std::string ScramSha256::ClientFirst() const { return kHeader + bare_; }

absl::StatusOr<SecretString> ScramSha256::ClientFinal(std::string_view server_first) {
  // r=, s=, i= in this order; extensions may follow, and one that is not to be passed over (m=) would come first.
  const std::vector<absl::string_view> parts = absl::StrSplit(Av(server_first), ',');
  if (parts.size() < 3 || !absl::StartsWith(parts[0], "r=") || !absl::StartsWith(parts[1], "s=") ||
      !absl::StartsWith(parts[2], "i=")) {
    return Broken("is malformed");
  }
  const std::string_view nonce = Sv(parts[0].substr(2));
  if (nonce.size() <= nonce_.size() || nonce.substr(0, nonce_.size()) != nonce_) return Broken("has another nonce");
  std::string salt;
  if (!absl::Base64Unescape(parts[1].substr(2), &salt) || salt.empty()) return Broken("has no salt");
  int iterations = 0;
  if (!absl::SimpleAtoi(parts[2].substr(2), &iterations) || iterations < kMinScramIterations ||
      iterations > kMaxScramIterations) {
    return Broken(
        absl::StrCat("asks for a number of iterations outside ", kMinScramIterations, " to ", kMaxScramIterations));
  }
  std::string salted(kHash, '\0');
  const std::string_view password = password_.Reveal();
  if (PKCS5_PBKDF2_HMAC(password.data(), static_cast<int>(password.size()),
                        reinterpret_cast<const unsigned char*>(salt.data()), static_cast<int>(salt.size()), iterations,
                        EVP_sha256(), kHash, reinterpret_cast<unsigned char*>(salted.data())) != 1) {
    return absl::InternalError("PBKDF2 failed");
  }
  const std::string without_proof = absl::StrCat(kBinding, ",r=", Av(nonce));
  const std::string auth = absl::StrCat(bare_, ",", Av(server_first), ",", without_proof);
  std::string key = Hmac(salted, "Client Key");
  std::string proof = Hmac(Sha256(key), auth);
  for (size_t i = 0; i < kHash; ++i) proof[i] = static_cast<char>(proof[i] ^ key[i]);
  signature_ = Hmac(Hmac(salted, "Server Key"), auth);
  OPENSSL_cleanse(salted.data(), salted.size());
  OPENSSL_cleanse(key.data(), key.size());
  return SecretString(absl::StrCat(without_proof, ",p=", absl::Base64Escape(proof)));
}

absl::Status ScramSha256::Verify(std::string_view server_final) {
  const std::vector<absl::string_view> parts = absl::StrSplit(Av(server_final), ',');
  if (absl::StartsWith(parts[0], "e=")) return absl::PermissionDeniedError("the server rejected the SCRAM proof");
  std::string signature;
  if (signature_.empty() || !absl::StartsWith(parts[0], "v=") ||
      !absl::Base64Unescape(parts[0].substr(2), &signature)) {
    return Broken("is malformed");
  }
  if (signature.size() != signature_.size() ||
      CRYPTO_memcmp(signature.data(), signature_.data(), signature.size()) != 0) {
    return Broken("does not prove that it knows the password");
  }
  verified_ = true;
  return absl::OkStatus();
}

}  // namespace poststelle::sasl
