// The driver: an SMTP session on a stream, for coroutines.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "libs/async/runtime.h"
#include "libs/net/dialer.h"
#include "libs/net/stream.h"
#include "libs/smtp/error.h"
#include "libs/smtp/session.h"

namespace poststelle::smtp {

// How long each step may take as a whole, however the server trickles (RFC 5321 §4.5.3.2, and Postfix). Don't shorten
// `final`: a server that is still storing the message when we give up has a copy of what will be sent again (RFC 1047).
struct Timeouts {
  absl::Duration connect = absl::Seconds(30);  // name and TCP, all addresses together
  absl::Duration tls = absl::Seconds(30);
  absl::Duration greeting = absl::Seconds(300);
  absl::Duration command = absl::Seconds(300);  // each reply to EHLO, STARTTLS, AUTH, MAIL, RCPT, RSET
  absl::Duration data = absl::Seconds(120);     // the reply to DATA, and to each BDAT but the last
  absl::Duration chunk = absl::Seconds(180);    // writing each piece of the message
  absl::Duration final = absl::Seconds(600);    // the reply to the final dot or BDAT LAST
  absl::Duration quit = absl::Seconds(30);      // nothing depends on it any more
  static Timeouts All(absl::Duration each) { return {each, each, each, each, each, each, each, each}; }
};

struct ConnectOptions {
  std::string host;
  uint16_t port = 0;
  Encryption encryption = Encryption::kTls;
  net::TlsOptions tls;
  // Who we say we are in EHLO: a domain or an address literal. InvalidArgument-like (kUnfit) if it can't be sent.
  std::string ehlo_name = "[127.0.0.1]";
  bool use_chunking = true;
  Timeouts timeouts;
  // Told each step as it begins, from the connection on: for a dialog that shows how far it came. May be empty. Called
  // by the coroutine that uses the client.
  std::function<void(Step)> on_step;
};

// Asked once for a message, when all of it but its end has been written and the connection is still alive: OK lets the
// end go, and from then on the outcome is unknown until the server has answered. Anything else withholds it. Here a
// sender commits that it is about to do what it can't undo.
using PermitSource = std::function<async::Task<absl::Status>()>;

// Used by one coroutine; it may be cancelled (asio cancellation), which ends the connection. Every error carries its
// Failure (error.h). After an error the client may still be usable(), then the next operation can be begun.
class Client {
 public:
  // Name, TCP, TLS, greeting, EHLO, STARTTLS, EHLO. Certificates are verified as `options.tls` says.
  static async::Task<absl::StatusOr<std::unique_ptr<Client>>> Connect(net::Dialer& dialer, ConnectOptions options);
  // The same from the greeting or the TLS handshake on, on a stream that is connected.
  static async::Task<absl::StatusOr<std::unique_ptr<Client>>> Connect(std::unique_ptr<net::Stream> stream,
                                                                      ConnectOptions options);
  // kAuthRejected, kAuthDisabled, kAuthUnavailable; kRefused and temporary where the server can't say now.
  async::Task<absl::Status> SignIn(Credentials credentials);
  // `message` must stay alive until it returns. Never fails otherwise than by its result.
  async::Task<SendResult> Send(Envelope envelope, std::string_view message, PermitSource permit);
  // Asks for a sign of life and forgets a message that is half told. Send does by itself what is needed between
  // messages.
  async::Task<absl::Status> Reset();
  // Says goodbye, waits for the answer and closes. Dropping the client without it closes at once.
  async::Task<absl::Status> Quit();

  // False once the connection is of no use any more.
  bool usable() const { return session_.state() != Session::State::kDead; }
  const Capabilities& capabilities() const { return session_.capabilities(); }

 private:
  Client(std::unique_ptr<net::Stream> stream, const ConnectOptions& options, WireString ehlo_name);
  // Drives the session until it is idle or dead, or wants a permit.
  async::Task<void> Run();
  async::Task<void> WriteOutput(std::string output);
  async::Task<void> StartTls();
  async::Task<void> ReadReply();
  // Takes what the server has sent by now, also its end; does not wait.
  async::Task<void> Poll();
  absl::Duration Limit(Step step) const;
  void Tell(Step step);

  std::unique_ptr<net::Stream> stream_;
  const net::TlsOptions tls_;
  const Timeouts timeouts_;
  const std::function<void(Step)> on_step_;
  Session session_;
  Step told_ = Step::kNone;
  std::vector<char> buffer_;
};

}  // namespace poststelle::smtp
