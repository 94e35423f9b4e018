#include "libs/rpc/page_token.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "libs/base/sv.h"

namespace poststelle::rpc {
namespace {

constexpr size_t kMacBytes = 16;

std::string Mac(std::string_view key, std::string_view arguments, std::string_view position) {
  const std::string input = absl::StrCat(arguments.size(), ":", Av(arguments), Av(position));
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char*>(input.data()),
       input.size(), mac, &size);
  return std::string(reinterpret_cast<char*>(mac), kMacBytes);
}

}  // namespace

std::string MakePageToken(std::string_view key, std::string_view arguments, std::string_view position) {
  return absl::WebSafeBase64Escape(absl::StrCat(Mac(key, arguments, position), Av(position)));
}

absl::StatusOr<std::string> ReadPageToken(std::string_view key, std::string_view arguments, std::string_view token) {
  if (token.empty()) return std::string();
  std::string bytes;
  const bool decoded = absl::WebSafeBase64Unescape(Av(token), &bytes) && bytes.size() >= kMacBytes;
  const std::string position = decoded ? bytes.substr(kMacBytes) : std::string();
  if (!decoded || CRYPTO_memcmp(bytes.data(), Mac(key, arguments, position).data(), kMacBytes) != 0) {
    return absl::InvalidArgumentError(
        "not a token of this list; give the next_page_token of the page before, with the same "
        "other arguments");
  }
  return position;
}

absl::StatusOr<int> PageSize(int requested, int fallback, int limit) {
  if (requested < 0) return absl::InvalidArgumentError("must not be negative");
  return requested == 0 ? fallback : std::min(requested, limit);
}

}  // namespace poststelle::rpc
