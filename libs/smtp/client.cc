#include "libs/smtp/client.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "libs/base/status_macros.h"
#include "libs/base/sv.h"

namespace poststelle::smtp {
namespace {

constexpr size_t kReadBuffer = 4 << 10;
// How long a server's last words are waited for after it has stopped to listen.
constexpr absl::Duration kLastWords = absl::Seconds(5);

SessionOptions ForSession(const ConnectOptions& options, WireString ehlo_name) {
  SessionOptions out;
  out.encryption = options.encryption;
  out.ehlo_name = std::move(ehlo_name);
  out.use_chunking = options.use_chunking;
  return out;
}

absl::StatusOr<WireString> EhloName(const std::string& name) {
  absl::StatusOr<WireString> wire = WireString::Make(name, "the name for EHLO");
  const bool spaced = name.empty() || name.find_first_of(" \t") != std::string::npos;
  if (wire.ok() && !spaced) return wire;
  return MakeError(Step::kEhlo, ErrorKind::kUnfit, "the name for EHLO can't be sent");
}

}  // namespace

Client::Client(std::unique_ptr<net::Stream> stream, const ConnectOptions& options, WireString ehlo_name)
    : stream_(std::move(stream)),
      tls_(options.tls),
      timeouts_(options.timeouts),
      on_step_(options.on_step),
      session_(ForSession(options, std::move(ehlo_name))),
      buffer_(kReadBuffer) {}

async::Task<absl::StatusOr<std::unique_ptr<Client>>> Client::Connect(net::Dialer& dialer, ConnectOptions options) {
  if (options.on_step) options.on_step(Step::kConnect);
  absl::StatusOr<std::unique_ptr<net::Stream>> stream =
      co_await dialer.Dial(options.host, options.port, options.timeouts.connect);
  if (!stream.ok()) {
    const bool name = net::GetNetError(stream.status()) == net::NetError::kResolve;
    co_return AtStep(name ? Step::kResolve : Step::kConnect, stream.status());
  }
  co_return co_await Connect(*std::move(stream), std::move(options));
}

async::Task<absl::StatusOr<std::unique_ptr<Client>>> Client::Connect(std::unique_ptr<net::Stream> stream,
                                                                     ConnectOptions options) {
  PS_CO_ASSIGN_OR_RETURN(WireString ehlo_name, EhloName(options.ehlo_name));
  std::unique_ptr<Client> client(new Client(std::move(stream), options, std::move(ehlo_name)));
  if (options.encryption == Encryption::kTls) co_await client->StartTls();
  co_await client->Run();
  if (!client->usable()) co_return client->session_.status();
  co_return client;
}

void Client::Tell(Step step) {
  if (step == told_ || step == Step::kNone) return;
  told_ = step;
  if (on_step_) on_step_(step);
}

absl::Duration Client::Limit(Step step) const {
  switch (step) {
    case Step::kGreeting:
      return timeouts_.greeting;
    case Step::kData:
      return timeouts_.data;
    case Step::kFinal:
      return timeouts_.final;
    case Step::kQuit:
      return timeouts_.quit;
    default:
      return timeouts_.command;
  }
}

async::Task<void> Client::StartTls() {
  Tell(Step::kTls);
  absl::Status started = co_await stream_->StartTls(tls_, timeouts_.tls);
  if (started.ok()) {
    session_.TlsStarted();
  } else {
    session_.Lost(AtStep(Step::kTls, started));
  }
}

async::Task<void> Client::Run() {
  while (true) {
    // Asked before the output is taken, which moves on from the body.
    const bool body = session_.state() == Session::State::kBody;
    if (body) co_await Poll();
    std::string output = session_.TakeOutput();
    if (!output.empty()) {
      co_await WriteOutput(std::move(output));
      continue;
    }
    switch (session_.state()) {
      case Session::State::kWaiting:
        co_await ReadReply();
        break;
      case Session::State::kNeedTls:
        co_await StartTls();
        break;
      case Session::State::kBody:
        break;
      case Session::State::kNeedPermit:
      case Session::State::kIdle:
        co_return;
      case Session::State::kDead:
        stream_->Close();
        co_return;
    }
  }
}

async::Task<void> Client::WriteOutput(std::string output) {
  const Step step = session_.step();
  Tell(step);
  const bool of_message = step == Step::kData || step == Step::kFinal;
  absl::Status written = co_await stream_->Write(output, of_message ? timeouts_.chunk : Limit(step));
  if (written.ok()) co_return;
  // A server that closes early mostly has said why. Not after the final dot: then nothing is certain any more.
  if (step != Step::kFinal && net::GetNetError(written) == net::NetError::kClosed) {
    const absl::Time deadline = absl::Now() + kLastWords;
    while (session_.state() != Session::State::kDead) {
      absl::StatusOr<size_t> got = co_await stream_->ReadSome(buffer_.data(), buffer_.size(),
                                                              std::max(deadline - absl::Now(), absl::ZeroDuration()));
      if (!got.ok()) break;
      session_.Receive(std::string_view(buffer_.data(), *got));
    }
  }
  session_.Lost(written);
}

async::Task<void> Client::ReadReply() {
  const Step step = session_.step();
  const int64_t replies = session_.replies();
  Tell(step);
  const absl::Duration limit = Limit(step);
  const absl::Time deadline = absl::Now() + limit;
  while (session_.state() == Session::State::kWaiting && session_.replies() == replies) {
    absl::StatusOr<size_t> got = co_await stream_->ReadSome(buffer_.data(), buffer_.size(),
                                                            std::max(deadline - absl::Now(), absl::ZeroDuration()));
    if (got.ok()) {
      session_.Receive(std::string_view(buffer_.data(), *got));
    } else if (net::GetNetError(got.status()) == net::NetError::kTimeout) {
      session_.Lost(net::MakeNetError(
          net::NetError::kTimeout, absl::StrCat("the server did not answer within ", absl::FormatDuration(limit), " (",
                                                Av(StepName(step)), ")")));
    } else {
      session_.Lost(got.status());
    }
  }
}

async::Task<void> Client::Poll() {
  stream_->Wake();
  absl::StatusOr<size_t> got = co_await stream_->ReadSome(buffer_.data(), buffer_.size(), timeouts_.chunk);
  if (got.ok()) {
    session_.Receive(std::string_view(buffer_.data(), *got));
  } else {
    session_.Lost(got.status());
  }
}

async::Task<absl::Status> Client::SignIn(Credentials credentials) {
  session_.SignIn(credentials);
  co_await Run();
  co_return session_.status();
}

async::Task<SendResult> Client::Send(Envelope envelope, std::string_view message, PermitSource permit) {
  session_.Send(std::move(envelope), message);
  co_await Run();
  if (session_.state() == Session::State::kNeedPermit) {
    // A connection that is gone already needs no permit, and makes nothing uncertain.
    co_await Poll();
  }
  if (session_.state() == Session::State::kNeedPermit) {
    const absl::Status permitted = co_await permit();
    if (permitted.ok()) {
      co_await Poll();
      session_.Permit();
    } else {
      session_.Withhold(permitted);
    }
  }
  co_await Run();
  co_return session_.result();
}

async::Task<absl::Status> Client::Reset() {
  session_.Reset();
  co_await Run();
  co_return session_.status();
}

async::Task<absl::Status> Client::Quit() {
  session_.Quit();
  co_await Run();
  stream_->Close();
  co_return session_.status();
}

}  // namespace poststelle::smtp
