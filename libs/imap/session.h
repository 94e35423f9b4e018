// One IMAP connection as a machine without I/O: bytes in, bytes out, and a word when TLS is to begin.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/base/secret_string.h"
#include "libs/imap/response_parser.h"

namespace poststelle::imap {

enum class Encryption { kNone, kStartTls, kTls };

struct SessionOptions {
  Encryption encryption = Encryption::kTls;
  std::string login;
  SecretString password;
  uint64_t max_body_bytes = 64 << 20;
  // What this server told before a sign-in on an earlier connection (sign_in_capabilities()); empty: nothing is known.
  // With implicit TLS the sign-in is then written at once, without waiting for the greeting.
  std::set<std::string> remembered;
  // Commands that are to be in one packet with the sign-in, where that is possible: behind_tags() are their tags then.
  std::vector<std::string> behind_sign_in;
};

// Untagged responses a command may bring; above it the server is out of its mind (or ours).
inline constexpr int64_t kMaxResponses = 1'000'000;

// True if a NO, BAD or BYE says that the same may go well later: by its code (RFC 5530, and those of big providers), or
// by its words, because many servers send none.
bool IsPassing(const Response& answer);

// Greeting, STARTTLS (RFC 9051 §6.2.1), sign-in (AUTHENTICATE PLAIN, LOGIN, AUTHENTICATE LOGIN), then commands, which
// may be pipelined. Used by one driver; after an error it is dead.
class Session : private ResponseHandler {
 public:
  enum class Phase { kGreeting, kCapability, kStartTls, kNeedTls, kAuthenticate, kReady };

  explicit Session(SessionOptions options);

  // Takes what was read. Bytes behind the answer to STARTTLS are an injection and an error.
  absl::Status Receive(std::string_view bytes);
  // What is to be written, once.
  std::string TakeOutput();
  // The driver has switched the stream to TLS; with implicit TLS it does so before anything else.
  void TlsStarted();
  // Bytes of a literal that are still to come.
  uint64_t expected() const { return parser_.literal_left(); }
  Phase phase() const { return phase_; }
  // What the server told last, upper case.
  const std::set<std::string>& capabilities() const { return capabilities_; }
  // True if the sign-in was written before the greeting had come.
  bool early() const { return early_; }
  // What the server told under TLS before the sign-in; empty: nothing, or there was no TLS.
  const std::set<std::string>& sign_in_capabilities() const { return sign_in_capabilities_; }
  // The tags of SessionOptions::behind_sign_in once they were sent with the sign-in, otherwise empty.
  const std::vector<std::string>& behind_tags() const { return behind_tags_; }
  // Whether the server told the capability (upper case) when it was asked last, by itself or by CAPABILITY.
  bool Has(const std::string& capability) const { return capabilities_.contains(capability); }
  // The connection ended: OK only where the server had said BYE or nothing was open.
  absl::Status Ended(const absl::Status& network) const;

  // Queues a command ("UID FETCH 1:* (UID)"); returns its tag. Only when ready.
  std::string Send(const std::string& command);
  // True once the server has answered; `result` says how: OK, or kServerRefused with its words.
  bool Done(const std::string& tag, absl::Status& result, Response* tagged = nullptr);

  // Called for each answer to a command, in the server's order among the untagged responses.
  std::function<void(const Response&)> on_tagged;
  // Where untagged responses and bodies of commands go.
  std::function<absl::Status(Response&)> on_untagged;
  ResponseHandler* bodies = nullptr;

 private:
  absl::Status OnResponse(Response response) override;
  absl::Status OnBodyBegin(uint32_t uid, uint64_t size) override;
  absl::Status OnBodyBytes(std::string_view bytes) override;
  absl::Status OnBodyEnd() override;
  absl::Status OnGreeting(const Response& response);
  absl::Status OnLateGreeting(const Response& response);
  absl::Status OnHandshakeAnswer(const Response& response);
  absl::Status OnContinuation(const Response& response);
  absl::Status AfterCapabilities();
  absl::Status Authenticate();
  void TakeCapabilities(std::string_view list);
  void HideSecret(std::string& text) const;
  void SendHandshake(const std::string& command);
  bool SignsInWithOneLine() const;
  void SendBehindSignIn();

  const SessionOptions options_;
  ResponseParser parser_;
  Phase phase_ = Phase::kGreeting;
  bool tls_ = false;
  std::set<std::string> capabilities_;  // upper case; those told before TLS are forgotten
  std::set<std::string> sign_in_capabilities_;
  bool early_ = false;
  bool greeting_due_ = false;  // of an early session
  std::vector<std::string> behind_tags_;
  std::string output_;
  int next_tag_ = 1;
  std::string handshake_tag_;
  std::vector<std::string> challenges_;  // what to answer to the next "+", last first
  std::map<std::string, Response> answered_;
  std::set<std::string> open_;
  int64_t responses_ = 0;
  bool bye_ = false;
  bool bye_passes_ = false;
  std::string bye_text_;
};

}  // namespace poststelle::imap
