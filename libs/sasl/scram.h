// SCRAM-SHA-256 (RFC 5802, RFC 7677), the client's side, without channel binding.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "libs/base/secret_string.h"

namespace poststelle::sasl {

// How often a server may have the password hashed. RFC 7677 §4 asks for 4,096 at least; the most is some 0.1 s of one
// core, which a hostile server must not stretch.
inline constexpr int kMinScramIterations = 4'096;
inline constexpr int kMaxScramIterations = 200'000;

// One exchange. Messages are those of the RFC, not yet in base64. The password never leaves, and the server proves that
// it knows it as well. Not thread-safe.
class ScramSha256 {
 public:
  // Whether the mechanism can be used: printable ASCII only, for which SASLprep (RFC 4013) has nothing to do.
  static bool CanUse(std::string_view login, const SecretString& password);
  // `nonce`: printable, without a comma, new for each exchange.
  ScramSha256(std::string_view login, SecretString password, std::string_view nonce);

  std::string ClientFirst() const;
  // From the server's first message. InvalidArgument if that breaks the RFC or the limits above.
  absl::StatusOr<SecretString> ClientFinal(std::string_view server_first);
  // Whether the server's last message proves that it knows the password; PermissionDenied if it says that we don't.
  absl::Status Verify(std::string_view server_final);
  bool answered() const { return !signature_.empty(); }  // ClientFinal has succeeded
  bool verified() const { return verified_; }

 private:
  std::string bare_;  // the client's first message without its header
  SecretString password_;
  std::string nonce_;
  std::string signature_;  // what the server has to come with; empty before ClientFinal
  bool verified_ = false;
};

}  // namespace poststelle::sasl
