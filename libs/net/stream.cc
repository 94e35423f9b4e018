#include "libs/net/stream.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "libs/base/sv.h"

namespace poststelle::net {
namespace {

constexpr char kNetErrorUrl[] = "poststelle/net";

}  // namespace

absl::Status MakeNetError(NetError error, std::string_view message) {
  const absl::StatusCode code =
      error == NetError::kCancelled ? absl::StatusCode::kCancelled : absl::StatusCode::kUnknown;
  absl::Status status(code, Av(message));
  status.SetPayload(kNetErrorUrl, absl::Cord(std::string(1, static_cast<char>('a' + static_cast<int>(error)))));
  return status;
}

NetError GetNetError(const absl::Status& status) {
  auto payload = status.GetPayload(kNetErrorUrl);
  if (!payload) return NetError::kIo;
  return static_cast<NetError>(std::string(*payload)[0] - 'a');
}

std::string_view ReasonOf(NetError error) {
  switch (error) {
    case NetError::kResolve:
      return "HOST_UNKNOWN";
    case NetError::kConnect:
      return "CONNECTION_REFUSED";
    case NetError::kTimeout:
      return "TIMEOUT";
    case NetError::kTls:
      return "TLS_FAILED";
    case NetError::kCertificateExpired:
      return "CERTIFICATE_EXPIRED";
    case NetError::kCertificateName:
      return "CERTIFICATE_NAME_MISMATCH";
    case NetError::kCertificateIssuer:
      return "CERTIFICATE_UNTRUSTED";
    case NetError::kCertificateKey:
      return "CERTIFICATE_KEY_MISMATCH";
    case NetError::kEgress:
      return "ADDRESS_NOT_ALLOWED";
    case NetError::kClosed:
    case NetError::kCancelled:
    case NetError::kIo:
      return "CONNECTION_CLOSED";
  }
  return "CONNECTION_CLOSED";
}

bool IsNetError(const absl::Status& status) { return status.GetPayload(kNetErrorUrl).has_value(); }

}  // namespace poststelle::net
