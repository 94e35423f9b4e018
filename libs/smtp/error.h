// Why an SMTP operation failed, as values beside the sentence: the step, the kind, and the server's reply.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "libs/smtp/reply.h"

namespace poststelle::smtp {

// Where in the conversation. A dialog names it, and a policy tells by it whose fault a refusal is: up to kAuth the
// server's or the mailbox's, at kMail and kData the message's, at kRcpt that recipient's.
enum class Step {
  kNone,
  kResolve,   // the name of the server
  kConnect,   // TCP
  kTls,       // handshake, certificate
  kGreeting,  // the server's first words
  kEhlo,      // EHLO or HELO
  kStartTls,  // the command; the handshake is kTls
  kAuth,
  kMail,
  kRcpt,
  kData,   // DATA or BDAT, up to the permit
  kFinal,  // from the permit on: the final dot or BDAT LAST, and the reply to it
  kReset,
  kQuit,
};
// "RCPT", "final dot": for messages and metrics.
std::string_view StepName(Step step);

enum class ErrorKind {
  kNone,             // not an SMTP error
  kNetwork,          // the status is that of libs/net as well: net::GetNetError says which
  kTimeout,          // the server was silent
  kProtocol,         // what it said makes no sense; somebody may be tampering
  kRefused,          // 4xx or 5xx, see the reply
  kNoStartTls,       // wanted, and not offered or refused
  kAuthRejected,     // login name or password are wrong
  kAuthDisabled,     // this way to sign in is switched off for the account or at the server: it needs OAuth, an
                     // application password, or an administrator
  kAuthUnavailable,  // no way to sign in that we know of is offered on this connection
  kUnsupported,      // the message needs an extension that the server does not offer
  kTooLarge,         // the server said before that it does not take a message of this size
  kUnfit,            // what we were to send can't be put into the protocol (an address, a line, a NUL)
  kNoPermit,         // the caller withheld the permit
  kCancelled,
};
// "AUTH_REJECTED": for logs, metrics and the reason of an error.
std::string_view KindName(ErrorKind kind);

struct Failure {
  Step step = Step::kNone;
  ErrorKind kind = ErrorKind::kNone;
  // The same may go well later without anybody doing anything. For a refusal that is what the server's code says;
  // whether to believe it (554 5.2.0 at a daily limit) is a policy's business.
  bool temporary = false;
  Reply reply;  // its code is 0 if there was none; only enhanced and one line of text are kept
};

// A sentence begins small and has no full stop: it is completed by who prints it. A refusal's sentence and its
// temporary() come from `reply`.
absl::Status MakeError(Step step, ErrorKind kind, std::string_view sentence, bool temporary = false,
                       const Reply& reply = Reply());

// Marks an error of libs/net, or of this library without a step, as one of `step`. A certificate that is not accepted
// is not temporary, and neither is an egress refusal or a name that does not exist; the rest is.
absl::Status AtStep(Step step, const absl::Status& status);

// What the status is about; kNone for one of somebody else.
Failure GetFailure(const absl::Status& status);

}  // namespace poststelle::smtp
