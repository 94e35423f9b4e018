#include "services/fetcher/failure_policy.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "libs/imap/error.h"
#include "libs/net/stream.h"

namespace poststelle::fetcher {
namespace {

constexpr absl::Duration kOurs = absl::Seconds(10);

}  // namespace

std::string FailureReason(const absl::Status& status) {
  if (std::string given = ReasonOf(status); !given.empty()) return given;
  switch (imap::GetErrorKind(status)) {
    case imap::ErrorKind::kNetwork:
      return std::string(net::ReasonOf(net::GetNetError(status)));
    case imap::ErrorKind::kTimeout:
      return "TIMEOUT";
    case imap::ErrorKind::kProtocol:
    case imap::ErrorKind::kTooLarge:
      return "PROTOCOL_ERROR";
    case imap::ErrorKind::kAuthRejected:
      return "AUTHENTICATION_REJECTED";
    case imap::ErrorKind::kAuthUnavailable:
      return "AUTHENTICATION_UNAVAILABLE";
    case imap::ErrorKind::kFolderMissing:
      return "FOLDER_MISSING";
    case imap::ErrorKind::kNoStartTls:
      return "STARTTLS_MISSING";
    case imap::ErrorKind::kServerBye:
      return "CONNECTION_CLOSED";
    case imap::ErrorKind::kServerRefused:
      return "SERVER_REFUSED";
    case imap::ErrorKind::kNone:
      break;
  }
  // What is neither the mail server's nor given a reason comes from the ledger.
  return absl::IsUnavailable(status) ? "DATABASE_UNAVAILABLE" : "INTERNAL";
}

namespace {

std::string Advice(const std::string& reason) {
  if (reason == "HOST_UNKNOWN") return "Check the server address.";
  if (reason == "CONNECTION_REFUSED") return "Check server address and port, and that a firewall lets us through.";
  if (reason == "TIMEOUT") return "The server may be overloaded; it is tried again by itself.";
  if (reason == "TLS_FAILED") return "Check the encryption setting and the port.";
  if (reason == "CERTIFICATE_UNTRUSTED")
    return "If the server uses a private authority, add its certificate to the mailbox.";
  if (reason == "CERTIFICATE_NAME_MISMATCH") return "Use the server name that the certificate is made out to.";
  if (reason == "CERTIFICATE_KEY_MISMATCH")
    return "If the server really has a new key, pin that one; compare it by another way first.";
  if (reason == "CERTIFICATE_EXPIRED") return "The server's operator has to renew it.";
  if (reason == "AUTHENTICATION_REJECTED") return "Check login name and password, then save the mailbox.";
  if (reason == "FOLDER_MISSING") return "Check the folder's name, or create it on the server.";
  if (reason == "STARTTLS_MISSING")
    return "Choose TLS, or ask the server's operator; we never fall back to clear text.";
  if (reason == "PARSER_UNAVAILABLE") return "Nothing is lost; it is tried again by itself once the parser runs.";
  if (reason == "DATABASE_UNAVAILABLE")
    return "Nothing is lost; it is tried again by itself once the database answers.";
  if (reason == "ADDRESS_NOT_ALLOWED") return "An administrator can allow its network with --egress-allow.";
  if (reason == "SECRET_UNREADABLE")
    return "Enter the password again. Or the operator gives config back the key file that it was stored with.";
  return "";
}

}  // namespace

Failure Classify(const absl::Status& status, const config::v1::Mailbox& mailbox) {
  Failure failure;
  failure.reason = FailureReason(status);
  failure.credentials = failure.reason == "AUTHENTICATION_REJECTED";
  failure.settings = failure.reason == "ADDRESS_NOT_ALLOWED";
  failure.ours = failure.reason == "CONFIG_UNAVAILABLE" || failure.reason == "PARSER_UNAVAILABLE" ||
                 failure.reason == "DATABASE_UNAVAILABLE";
  const std::string advice = Advice(failure.reason);
  failure.reason_text = absl::StrCat(mailbox.connection().host(), ":", mailbox.connection().port(), ": ",
                                     std::string(status.message()), advice.empty() ? "" : " ", advice);
  return failure;
}

absl::Duration RetryDelay(const Failure& failure, int failures, absl::Duration interval) {
  if (failure.ours) return std::min(interval, kOurs);
  const int doublings = std::min(failures > 0 ? failures - 1 : 0, 20);
  absl::Duration base = failure.credentials || failure.settings ? std::max(interval, absl::Minutes(5)) : interval;
  const absl::Duration cap = std::max(interval, failure.credentials ? absl::Hours(6) : absl::Minutes(30));
  for (int i = 0; i < doublings && base < cap; ++i) base *= 2;
  return std::min(base, cap);
}

}  // namespace poststelle::fetcher
