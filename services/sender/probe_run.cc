#include "services/sender/probe_run.h"

#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "libs/base/ids.h"
#include "libs/base/server_words.h"
#include "libs/probe/dial.h"
#include "services/sender/test_message.h"

namespace poststelle::sender {
namespace {

using probe::Step;

// The status with the words of the server's reply, its codes before them.
absl::Status WithReply(const absl::Status& status) {
  const smtp::Reply reply = smtp::GetFailure(status).reply;
  if (reply.code == 0) return status;
  return WithServerWords(
      status, absl::StrCat(reply.code, " ", reply.enhanced, reply.enhanced.empty() ? "" : " ", reply.Text()));
}

std::string RefusalReason(smtp::Step step) {
  switch (step) {
    case smtp::Step::kGreeting:
      return "CONNECTION_CLOSED";
    case smtp::Step::kMail:
      return "SENDER_REFUSED";
    case smtp::Step::kRcpt:
      return "RECIPIENT_REFUSED";
    case smtp::Step::kData:
    case smtp::Step::kFinal:
      return "MESSAGE_REFUSED";
    default:
      return "SERVER_REFUSED";
  }
}

async::Task<absl::Status> Permitted() { co_return absl::OkStatus(); }

}  // namespace

std::string FailureReason(const absl::Status& status) {
  const smtp::Failure failure = smtp::GetFailure(status);
  switch (failure.kind) {
    case smtp::ErrorKind::kTimeout:
      return "TIMEOUT";
    case smtp::ErrorKind::kNetwork:
    case smtp::ErrorKind::kCancelled:
      return std::string(net::ReasonOf(net::GetNetError(status)));
    case smtp::ErrorKind::kRefused:
      return RefusalReason(failure.step);
    case smtp::ErrorKind::kNoStartTls:
      return "STARTTLS_MISSING";
    case smtp::ErrorKind::kAuthRejected:
      return "AUTHENTICATION_REJECTED";
    case smtp::ErrorKind::kAuthDisabled:
      return "AUTHENTICATION_DISABLED";
    case smtp::ErrorKind::kAuthUnavailable:
      return "AUTHENTICATION_UNAVAILABLE";
    case smtp::ErrorKind::kUnfit:
      return failure.step == smtp::Step::kMail ? "SENDER_REFUSED" : "INTERNAL";
    case smtp::ErrorKind::kUnsupported:
    case smtp::ErrorKind::kTooLarge:
      return "MESSAGE_REFUSED";
    case smtp::ErrorKind::kProtocol:
      return "PROTOCOL_ERROR";
    case smtp::ErrorKind::kNoPermit:
    case smtp::ErrorKind::kNone:
      break;
  }
  return net::IsNetError(status) ? std::string(net::ReasonOf(net::GetNetError(status))) : "INTERNAL";
}

bool ProbeRun::Fail(const absl::Status& status) {
  log_.Fail(FailureReason(status), WithReply(status));
  return false;
}

smtp::ConnectOptions ProbeRun::Options() const {
  const config::v1::Connection& connection = mailbox_.connection();
  smtp::ConnectOptions out;
  out.host = connection.host();
  out.port = static_cast<uint16_t>(connection.port());
  out.encryption = connection.encryption() == config::v1::Connection::ENCRYPTION_NONE ? smtp::Encryption::kNone
                   : connection.encryption() == config::v1::Connection::ENCRYPTION_STARTTLS
                       ? smtp::Encryption::kStartTls
                       : smtp::Encryption::kTls;
  out.tls.server_name = connection.host();
  out.tls.ca_certificates_pem = connection.ca_certificates_pem();
  out.tls.pinned_key_sha256 = connection.pinned_key_sha256();
  out.ehlo_name = context_.ehlo_name;
  out.timeouts = smtp::Timeouts::All(context_.command_timeout);
  out.timeouts.connect = context_.connect_timeout;
  return out;
}

void ProbeRun::NoteTls() {
  if (log_.kind() != Step::KIND_TLS || stream_ == nullptr) return;
  if (const std::optional<net::TlsPeer> peer = stream_->tls_peer()) {
    log_.Detail(absl::StrCat(peer->version, ", certificate of ", peer->subject));
    tls_done_ = true;
  }
}

void ProbeRun::OnStep(smtp::Step step) {
  Step::Kind next = log_.kind();
  switch (step) {
    case smtp::Step::kGreeting:
      next = Step::KIND_GREETING;
      break;
    case smtp::Step::kEhlo:
      // The second EHLO, behind STARTTLS, belongs to TLS: the first one was the greeting's.
      NoteTls();
      break;
    case smtp::Step::kStartTls:
    case smtp::Step::kTls:
      next = Step::KIND_TLS;
      break;
    case smtp::Step::kAuth:
      next = Step::KIND_SIGN_IN;
      break;
    case smtp::Step::kMail:
      next = Step::KIND_SEND;
      break;
    default:
      break;
  }
  if (next == log_.kind()) return;
  if (!tls_done_) NoteTls();
  log_.Begin(next);
}

async::Task<bool> ProbeRun::Connect() {
  smtp::ConnectOptions options = Options();
  log_.Begin(Step::KIND_NAME_LOOKUP);
  auto stream = co_await probe::Dial(context_.dialer, options.host, options.port, options.timeouts.connect, log_);
  if (!stream.ok()) co_return Fail(stream.status());
  stream_ = stream->get();
  options.on_step = [this](smtp::Step step) { OnStep(step); };
  auto client = co_await smtp::Client::Connect(*std::move(stream), std::move(options));
  if (!client.ok()) {
    stream_ = nullptr;
    const bool no_tls = smtp::GetFailure(client.status()).kind == smtp::ErrorKind::kNoStartTls;
    if (no_tls && log_.kind() != Step::KIND_TLS) log_.Begin(Step::KIND_TLS);
    co_return Fail(client.status());
  }
  client_ = *std::move(client);
  if (log_.kind() != Step::KIND_SIGN_IN) OnStep(smtp::Step::kAuth);
  smtp::Credentials credentials;
  credentials.login = mailbox_.password_authentication().login_name();
  if (credentials.login.empty()) credentials.login = mailbox_.address();
  credentials.password = SecretString(mailbox_.password_authentication().password());
  absl::Status signed_in = co_await client_->SignIn(std::move(credentials));
  if (!signed_in.ok()) co_return Fail(signed_in);
  co_return true;
}

async::Task<void> ProbeRun::Send(std::string recipient) {
  log_.Begin(Step::KIND_SEND);
  log_.Say("recipient", recipient);
  absl::StatusOr<smtp::Address> from = smtp::Address::Make(mailbox_.address());
  absl::StatusOr<smtp::Address> to = smtp::Address::Make(recipient);
  if (!from.ok() || !to.ok()) {
    log_.Fail(from.ok() ? "RECIPIENT_REFUSED" : "SENDER_REFUSED", from.ok() ? to.status() : from.status());
    co_return;
  }
  const std::string& address = mailbox_.address();
  const std::string id = absl::StrCat(RandomId(), "@", address.substr(address.rfind('@') + 1));
  const std::string message = TestMessage(address, recipient, mailbox_.display_name(), absl::Now(), id);
  smtp::Envelope envelope{*from, {*to}};
  smtp::PermitSource permit = Permitted;
  const smtp::SendResult sent = co_await client_->Send(std::move(envelope), message, std::move(permit));
  if (sent.outcome == smtp::Outcome::kUnknown) {
    log_.Fail("SEND_UNCERTAIN", WithReply(sent.status));
  } else if (sent.outcome == smtp::Outcome::kNotAccepted) {
    Fail(sent.status);
  } else {
    log_.Detail(absl::StrCat("Message-ID <", id, ">"));
    log_.End();
  }
}

async::Task<void> ProbeRun::Test(std::string recipient) {
  const bool connected = co_await Connect();
  if (!connected) co_return;
  if (!recipient.empty()) co_await Send(recipient);
  log_.End();
  if (client_->usable()) (co_await client_->Quit()).IgnoreError();  // nothing depends on it any more
}

}  // namespace poststelle::sender
