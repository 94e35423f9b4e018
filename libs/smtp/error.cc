#include "libs/smtp/error.h"

#include <charconv>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "libs/base/sv.h"
#include "libs/net/stream.h"

namespace poststelle::smtp {
namespace {

constexpr char kSmtpErrorUrl[] = "poststelle/smtp";

bool MayPass(net::NetError error) {
  switch (error) {
    case net::NetError::kCertificateExpired:
    case net::NetError::kCertificateName:
    case net::NetError::kCertificateIssuer:
    case net::NetError::kCertificateKey:
    case net::NetError::kTls:
    case net::NetError::kEgress:
      return false;
    default:
      return true;
  }
}

int Number(absl::string_view text) {
  int out = 0;
  std::from_chars(text.data(), text.data() + text.size(), out);
  return out;
}

// Step, kind, temporary, code, enhanced code and text, a line each: none of them holds a line break.
void Attach(absl::Status& status, Step step, ErrorKind kind, bool temporary, const Reply& reply) {
  status.SetPayload(kSmtpErrorUrl, absl::Cord(absl::StrCat(static_cast<int>(step), "\n", static_cast<int>(kind), "\n",
                                                           temporary ? 1 : 0, "\n", reply.code, "\n", reply.enhanced,
                                                           "\n", reply.Text())));
}

}  // namespace

std::string_view StepName(Step step) {
  switch (step) {
    case Step::kNone:
      return "none";
    case Step::kResolve:
      return "resolve";
    case Step::kConnect:
      return "connect";
    case Step::kTls:
      return "TLS";
    case Step::kGreeting:
      return "greeting";
    case Step::kEhlo:
      return "EHLO";
    case Step::kStartTls:
      return "STARTTLS";
    case Step::kAuth:
      return "AUTH";
    case Step::kMail:
      return "MAIL";
    case Step::kRcpt:
      return "RCPT";
    case Step::kData:
      return "DATA";
    case Step::kFinal:
      return "final dot";
    case Step::kReset:
      return "RSET";
    case Step::kQuit:
      return "QUIT";
  }
  return "none";
}

std::string_view KindName(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kNone:
      return "NONE";
    case ErrorKind::kNetwork:
      return "NETWORK";
    case ErrorKind::kTimeout:
      return "TIMEOUT";
    case ErrorKind::kProtocol:
      return "PROTOCOL";
    case ErrorKind::kRefused:
      return "REFUSED";
    case ErrorKind::kNoStartTls:
      return "NO_STARTTLS";
    case ErrorKind::kAuthRejected:
      return "AUTH_REJECTED";
    case ErrorKind::kAuthDisabled:
      return "AUTH_DISABLED";
    case ErrorKind::kAuthUnavailable:
      return "AUTH_UNAVAILABLE";
    case ErrorKind::kUnsupported:
      return "UNSUPPORTED";
    case ErrorKind::kTooLarge:
      return "TOO_LARGE";
    case ErrorKind::kUnfit:
      return "UNFIT";
    case ErrorKind::kNoPermit:
      return "NO_PERMIT";
    case ErrorKind::kCancelled:
      return "CANCELLED";
  }
  return "NONE";
}

absl::Status MakeError(Step step, ErrorKind kind, std::string_view sentence, bool temporary, const Reply& reply) {
  const bool cancelled = kind == ErrorKind::kCancelled;
  absl::Status status(cancelled ? absl::StatusCode::kCancelled : absl::StatusCode::kUnknown,
                      reply.code == 0 ? std::string(sentence) : absl::StrCat(Av(sentence), ": ", reply.Quoted()));
  Attach(status, step, kind, temporary || reply.temporary(), reply);
  return status;
}

absl::Status AtStep(Step step, const absl::Status& status) {
  if (status.ok()) return status;
  absl::Status out = status;
  if (status.GetPayload(kSmtpErrorUrl)) {
    const Failure failure = GetFailure(status);
    if (failure.step == Step::kNone) Attach(out, step, failure.kind, failure.temporary, failure.reply);
    return out;
  }
  const net::NetError error = net::GetNetError(status);
  const ErrorKind kind = error == net::NetError::kTimeout     ? ErrorKind::kTimeout
                         : error == net::NetError::kCancelled ? ErrorKind::kCancelled
                                                              : ErrorKind::kNetwork;
  Attach(out, step, kind, MayPass(error), Reply());
  return out;
}

Failure GetFailure(const absl::Status& status) {
  Failure out;
  const auto payload = status.GetPayload(kSmtpErrorUrl);
  if (!payload) return out;
  const std::vector<std::string> lines = absl::StrSplit(std::string(*payload), absl::MaxSplits('\n', 5));
  out.step = static_cast<Step>(Number(lines[0]));
  out.kind = static_cast<ErrorKind>(Number(lines[1]));
  out.temporary = lines[2] == "1";
  out.reply.code = Number(lines[3]);
  out.reply.enhanced = lines[4];
  if (!lines[5].empty()) out.reply.lines = {lines[5]};
  return out;
}

}  // namespace poststelle::smtp
