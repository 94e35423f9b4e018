// One SMTP submission connection as a machine without I/O: bytes in, bytes out, and a word when TLS is to begin, when
// the permit for the final dot is to be asked for, and when what was begun is done.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "libs/base/ids.h"
#include "libs/base/secret_string.h"
#include "libs/base/wire_string.h"
#include "libs/sasl/scram.h"
#include "libs/smtp/address.h"
#include "libs/smtp/capabilities.h"
#include "libs/smtp/error.h"
#include "libs/smtp/reply.h"

namespace poststelle::smtp {

enum class Encryption { kNone, kStartTls, kTls };

struct SessionOptions {
  Encryption encryption = Encryption::kTls;
  // Who we say we are: a domain, or an address literal such as "[127.0.0.1]".
  WireString ehlo_name;
  // BDAT instead of DATA where the server offers CHUNKING.
  bool use_chunking = true;
  // A new one for each sign-in with SCRAM: printable, without a comma. Another source only makes a test repeatable.
  std::function<std::string()> nonce = RandomId;
};

struct Credentials {
  std::string login;
  SecretString password;
};

struct Envelope {
  Address sender;
  std::vector<Address> recipients;
};

// What became of a message.
enum class Outcome {
  kNotAccepted,  // for certain: it may be sent again
  kAccepted,     // for certain, for the recipients whose replies are positive
  kUnknown,      // the permit was given and no reply came: nobody can know (RFC 1047)
};

struct SendResult {
  Outcome outcome = Outcome::kNotAccepted;
  // OK if accepted; otherwise why not, or why nobody knows: see GetFailure.
  absl::Status status;
  // One for each recipient of the envelope, in its order; code 0 where the server was not asked, or did not answer. A
  // recipient has the message if its reply is positive and `outcome` is kAccepted.
  std::vector<Reply> recipients;
  // To the final dot or BDAT LAST. Many servers tell their queue id in its text.
  Reply final_reply;
};

// Greeting, EHLO, STARTTLS (RFC 3207), AUTH (RFC 4954), mail transactions (RFC 5321, 2920, 3030), RSET, QUIT. One
// operation at a time; the handshake begins with the object. A driver does, until state() is kIdle or kDead:
//   write TakeOutput(); then by state(): kWaiting: read and Receive(); kNeedTls: switch to TLS and TlsStarted();
//   kBody: nothing; kNeedPermit: Permit() or Withhold().
// Deterministic. Not thread-safe.
class Session {
 public:
  enum class State {
    kWaiting,     // for a reply
    kNeedTls,     // the server awaits the TLS handshake
    kBody,        // TakeOutput() gives the next piece of the message
    kNeedPermit,  // the whole message but its end is written: may the end be written?
    kIdle,        // the operation is done
    kDead,        // the connection is of no use any more; close it
  };

  explicit Session(SessionOptions options);

  State state() const { return state_; }
  // What is under way: to name it, and to choose a time limit. While replies are awaited, that of the next one.
  Step step() const;
  // Grows with every reply: its change tells a driver that the time limit begins anew.
  int64_t replies() const { return replies_; }
  // Of the last EHLO; those told before TLS are forgotten.
  const Capabilities& capabilities() const { return capabilities_; }

  // Takes what was read. Bytes behind the answer to STARTTLS, and answers to what was not asked, are errors: somebody
  // may have injected them.
  void Receive(std::string_view bytes);
  // What is to be written now, once; at most kPieceBytes and a little of a message.
  std::string TakeOutput();
  // The stream speaks TLS now: after kNeedTls, or before anything else with Encryption::kTls.
  void TlsStarted();
  // The connection failed, with an error of libs/net. Afterwards kDead.
  void Lost(const absl::Status& network);

  // How the last handshake, SignIn, Reset or Quit ended. With kDead: what ended the connection.
  const absl::Status& status() const { return status_; }
  // How the last Send ended; meaningless before it has.
  const SendResult& result() const { return result_; }

  // The operations. Only with kIdle; with kDead they end at once with what ended the connection. After an error that is
  // not kDead the next one may be begun.
  //
  // SCRAM-SHA-256, or else PLAIN, or else LOGIN. A server that refuses one way is tried with the next; one that rejects
  // us with SCRAM only where TLS protects the password: it may know no SCRAM secret of this account. With
  // Encryption::kNone the password goes as it is: that is what the caller asked for. With the others it never goes
  // before TLS has started.
  void SignIn(const Credentials& credentials);
  // `message` must stay alive until the operation has ended. Its line ends are made canonical (content.h). Recipients
  // that are refused don't stop the others.
  void Send(Envelope envelope, std::string_view message);
  // From here on the outcome is kUnknown until the server has answered. Only with kNeedPermit.
  void Permit();
  // The end is not written: the message is not accepted. DATA has no way back, so the connection is dead then.
  void Withhold(const absl::Status& reason);
  void Reset();
  // kDead after it, with status() OK if the server said goodbye.
  void Quit();

 private:
  enum class Ask { kGreeting, kEhlo, kHelo, kStartTls, kAuth, kReset, kMail, kRcpt, kData, kChunk, kFinal, kQuit };
  struct Expected {
    Ask ask;
    size_t recipient = 0;
  };

  void Command(Ask ask, std::string_view line, size_t recipient = 0);
  void OnReply(Reply reply);
  void OnUnasked(const Reply& reply);
  void OnGreeting(const Reply& reply);
  void OnEhlo(const Reply& reply);
  void OnStartTls(const Reply& reply);
  void OnAuth(Reply reply);
  void OnMail(const Reply& reply);
  void OnRecipient(Reply reply, size_t recipient);
  void OnData(const Reply& reply);
  void OnChunk(const Reply& reply);
  void OnFinal(const Reply& reply);
  // With the first of mechanisms_.
  void BeginAuth();
  void OnScramChallenge(const Reply& reply);
  void BeginMail();
  // Asks for the recipients from `begin` on: one, or as many as go in one group.
  void NextRecipients(size_t begin);
  void RecipientsDone();
  void NextChunk();
  void AppendPiece();
  // A server may repeat what it was told, in words that are logged and shown.
  void Redact(Reply& reply) const;
  // Ends the operation; the connection lives.
  void Finish(absl::Status status);
  void Settle(Outcome outcome, absl::Status status);
  // Ends the operation and the connection.
  void Die(absl::Status status);
  // True if the session is dead; status() is an error then, also after a goodbye.
  bool Ended(Step step);
  // Where the part of message_ begins that goes with the final dot.
  size_t tail() const;

  const SessionOptions options_;
  State state_ = State::kWaiting;
  ReplyParser parser_;
  std::string output_;
  std::deque<Expected> expected_;
  Step step_ = Step::kGreeting;  // when nothing is expected
  int64_t replies_ = 0;
  absl::Status status_;
  Capabilities capabilities_;
  bool tls_ = false;

  // Sign-in.
  Credentials credentials_;
  std::deque<std::string_view> mechanisms_;  // under way, and those to try after it
  std::optional<sasl::ScramSha256> scram_;   // under way
  std::deque<SecretString> answers_;         // to the challenges to come
  std::vector<SecretString> sent_;           // secrets that a reply must not repeat
  bool auth_cancelled_ = false;

  // The message under way.
  bool sending_ = false;
  bool permitted_ = false;
  bool dirty_ = false;  // RSET before the next one
  Envelope envelope_;
  std::string parameters_;  // of MAIL
  std::string canonical_;   // holds the message if the caller's was not canonical
  std::string_view message_;
  size_t position_ = 0;   // of message_: what is before it was given to TakeOutput
  size_t chunk_end_ = 0;  // of message_: where the current BDAT ends
  bool chunking_ = false;
  absl::Status mail_status_;
  SendResult result_;
};

// Sizes of the pieces of a message: what TakeOutput gives at once, the most in one BDAT, and what is kept back to go
// with the final dot, so that a short message is one packet.
inline constexpr size_t kPieceBytes = 64 << 10;
inline constexpr size_t kChunkBytes = 1 << 20;
inline constexpr size_t kTailBytes = 16 << 10;
// Most recipients asked for before their replies are read (RFC 2920 §3.1): neither side then has more to say than the
// buffers of a connection hold, however many there are, so that they can't wait for each other.
inline constexpr size_t kPipelinedRecipients = 100;
// Longest command line with its end (RFC 5321 §4.5.3.1.4).
inline constexpr size_t kMaxCommandLine = 512;

}  // namespace poststelle::smtp
