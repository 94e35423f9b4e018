#include "libs/imap/session.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "libs/base/server_words.h"
#include "libs/base/status_macros.h"
#include "libs/base/sv.h"
#include "libs/imap/error.h"
#include "libs/imap/quote.h"
#include "libs/sasl/sasl.h"

namespace poststelle::imap {
namespace {

absl::Status Refused(const Response& response, std::string_view what) {
  return WithServerWords(MakeError(ErrorKind::kServerRefused,
                                   absl::StrCat("the server refused ", Av(what), ": ", Quoted(response.text), ".")),
                         response.text);
}

}  // namespace

bool IsPassing(const Response& answer) {
  for (const char* code : {"UNAVAILABLE", "INUSE", "LIMIT", "THROTTLED", "OVERQUOTA"}) {
    if (answer.code == code) return true;
  }
  const std::string text = absl::AsciiStrToLower(answer.text);
  for (const char* words : {"throttl", "too many", "try again", "retry", "temporar", "bandwidth", "overload", "busy",
                            "shutting down", "shutdown", "restart"}) {
    if (absl::StrContains(text, words)) return true;
  }
  return false;
}

Session::Session(SessionOptions options) : options_(std::move(options)), parser_(*this, options_.max_body_bytes) {}

std::string Session::TakeOutput() { return std::exchange(output_, {}); }

absl::Status Session::Receive(std::string_view bytes) {
  // A server may put nothing behind its answer to STARTTLS: what stands there was injected (CVE-2011-0411 and its
  // family). Fed line by line until then, so that not one byte of it is interpreted; from the greeting on, because an
  // attacker may send the answer before we ask.
  while (!bytes.empty()) {
    if (phase_ == Phase::kNeedTls) {
      return MakeError(ErrorKind::kProtocol,
                       "the server sent data between its answer to STARTTLS and the start of TLS; somebody "
                       "may be tampering with the connection.");
    }
    const bool stepwise = options_.encryption == Encryption::kStartTls && !tls_;
    const size_t end = stepwise ? bytes.find('\n') : std::string_view::npos;
    const std::string_view part = bytes.substr(0, end == std::string_view::npos ? bytes.size() : end + 1);
    bytes.remove_prefix(part.size());
    PS_RETURN_IF_ERROR(parser_.Feed(part));
  }
  return absl::OkStatus();
}

absl::Status Session::Ended(const absl::Status& network) const {
  if (!bye_) return network;
  absl::Status ended = WithServerWords(
      MakeError(ErrorKind::kServerBye, absl::StrCat("the server ended the connection: ", Quoted(bye_text_), ".")),
      bye_text_);
  return bye_passes_ ? Passing(std::move(ended)) : ended;
}

void Session::TlsStarted() {
  tls_ = true;
  if (phase_ != Phase::kNeedTls) {  // implicit TLS: the greeting is still to come
    capabilities_ = options_.remembered;
    if (options_.encryption != Encryption::kTls || !SignsInWithOneLine()) {
      capabilities_.clear();
      return;
    }
    // Authenticate() fails only for a login name that can't be sent; then it says so when the greeting has come.
    if (!Authenticate().ok()) {
      phase_ = Phase::kGreeting;
      capabilities_.clear();
      return;
    }
    early_ = greeting_due_ = true;
    return;
  }
  capabilities_.clear();
  phase_ = Phase::kCapability;
  SendHandshake("CAPABILITY");
}

void Session::SendHandshake(const std::string& command) {
  handshake_tag_ = absl::StrCat("h", next_tag_++);
  absl::StrAppend(&output_, handshake_tag_, " ", command, "\r\n");
}

std::string Session::Send(const std::string& command) {
  std::string tag = absl::StrCat("c", next_tag_++);
  absl::StrAppend(&output_, tag, " ", command, "\r\n");
  open_.insert(tag);
  return tag;
}

bool Session::Done(const std::string& tag, absl::Status& result, Response* tagged) {
  auto it = answered_.find(tag);
  if (it == answered_.end()) return false;
  result = it->second.name == "OK" ? absl::OkStatus() : Refused(it->second, "a command");
  if (tagged != nullptr) *tagged = it->second;
  answered_.erase(it);
  return true;
}

void Session::TakeCapabilities(std::string_view list) {
  capabilities_.clear();
  for (absl::string_view word : absl::StrSplit(Av(list), ' ', absl::SkipEmpty())) {
    capabilities_.insert(absl::AsciiStrToUpper(word));
  }
}

// Some servers and proxies repeat the command that they refuse: what was secret in it must not get into errors and
// logs. A word of less than kShortest bytes says more by its absence than by standing there.
void Session::HideSecret(std::string& text) const {
  constexpr size_t kShortest = 4;
  if (text.empty() || options_.password.Reveal().size() < kShortest) return;
  std::vector<SecretString> forms{options_.password, sasl::Base64(options_.password.Reveal())};
  if (absl::StatusOr<SecretString> plain = sasl::Plain(options_.login, options_.password); plain.ok()) {
    forms.insert(forms.begin(), *std::move(plain));
  }
  if (absl::StatusOr<std::string> quoted = Quote(options_.password.Reveal()); quoted.ok()) {
    forms.insert(forms.begin(), SecretString(quoted->substr(1, quoted->size() - 2)));
  }
  for (const SecretString& form : forms) absl::StrReplaceAll({{Av(form.Reveal()), "***"}}, &text);
}

absl::Status Session::OnResponse(Response response) {
  // Those whose words we repeat.
  if (response.name == "NO" || response.name == "BAD" || response.name == "BYE") HideSecret(response.text);
  if (response.code == "CAPABILITY") TakeCapabilities(response.code_value);
  if (response.kind == Response::Kind::kContinuation) return OnContinuation(response);
  if (response.kind == Response::Kind::kUntagged) {
    if (++responses_ > kMaxResponses) return MakeError(ErrorKind::kProtocol, "the server does not stop answering.");
    if (phase_ == Phase::kGreeting) return OnGreeting(response);
    if (greeting_due_) return OnLateGreeting(response);
    if (response.name == "CAPABILITY") TakeCapabilities(response.text);
    if (response.name == "BYE") {
      bye_ = true;
      bye_passes_ = IsPassing(response);
      bye_text_ = response.text;
      if (phase_ != Phase::kReady) return Ended(absl::OkStatus());
    }
    if (phase_ == Phase::kReady && on_untagged) return on_untagged(response);
    return absl::OkStatus();
  }
  if (greeting_due_) return MakeError(ErrorKind::kProtocol, "the server answered before it had greeted us.");
  if (phase_ != Phase::kReady) return OnHandshakeAnswer(response);
  if (open_.erase(response.tag) == 0) {
    return MakeError(ErrorKind::kProtocol,
                     absl::StrCat("the server answered a command that was never given: ", Quoted(response.tag), "."));
  }
  responses_ = 0;
  if (on_tagged) on_tagged(response);
  answered_[response.tag] = std::move(response);
  return absl::OkStatus();
}

namespace {

absl::Status CheckGreeting(const Response& response) {
  if (response.name == "BYE") {
    return WithServerWords(
        MakeError(ErrorKind::kServerBye, absl::StrCat("the server turned us away: ", Quoted(response.text), ".")),
        response.text);
  }
  if (response.name == "PREAUTH") {
    return MakeError(ErrorKind::kProtocol,
                     "the server says that we are signed in already, which we are not; somebody may be "
                     "tampering with the connection.");
  }
  if (response.name != "OK") return MakeError(ErrorKind::kProtocol, "this is no IMAP server: its greeting is unknown.");
  return absl::OkStatus();
}

}  // namespace

absl::Status Session::OnLateGreeting(const Response& response) {
  PS_RETURN_IF_ERROR(CheckGreeting(response));
  greeting_due_ = false;
  if (response.code == "CAPABILITY") sign_in_capabilities_ = capabilities_;
  return absl::OkStatus();
}

absl::Status Session::OnGreeting(const Response& response) {
  PS_RETURN_IF_ERROR(CheckGreeting(response));
  phase_ = Phase::kCapability;
  if (capabilities_.empty()) {
    SendHandshake("CAPABILITY");
    return absl::OkStatus();
  }
  return AfterCapabilities();
}

absl::Status Session::AfterCapabilities() {
  if (options_.encryption != Encryption::kStartTls || tls_) return Authenticate();
  if (!Has("STARTTLS")) {
    return MakeError(ErrorKind::kNoStartTls, "the server offers no STARTTLS.");
  }
  phase_ = Phase::kStartTls;
  SendHandshake("STARTTLS");
  return absl::OkStatus();
}

bool Session::SignsInWithOneLine() const {
  if (Has("AUTH=PLAIN")) return Has("SASL-IR");
  return !capabilities_.empty() && !Has("LOGINDISABLED");
}

void Session::SendBehindSignIn() {
  for (const std::string& command : options_.behind_sign_in) behind_tags_.push_back(Send(command));
}

absl::Status Session::Authenticate() {
  phase_ = Phase::kAuthenticate;
  if (tls_) sign_in_capabilities_ = capabilities_;
  if (Has("AUTH=PLAIN")) {
    PS_ASSIGN_OR_RETURN(SecretString plain, sasl::Plain(options_.login, options_.password));
    if (Has("SASL-IR")) {
      SendHandshake(absl::StrCat("AUTHENTICATE PLAIN ", Av(plain.Reveal())));
      SendBehindSignIn();
    } else {
      challenges_ = {std::string(plain.Reveal())};
      SendHandshake("AUTHENTICATE PLAIN");
    }
    return absl::OkStatus();
  }
  if (!Has("LOGINDISABLED")) {
    PS_ASSIGN_OR_RETURN(std::string login, Quote(options_.login));
    PS_ASSIGN_OR_RETURN(std::string password, Quote(options_.password.Reveal()));
    SendHandshake(absl::StrCat("LOGIN ", login, " ", password));
    SendBehindSignIn();
    return absl::OkStatus();
  }
  if (Has("AUTH=LOGIN")) {
    challenges_ = {std::string(sasl::Base64(options_.password.Reveal()).Reveal()),
                   std::string(sasl::Base64(options_.login).Reveal())};
    SendHandshake("AUTHENTICATE LOGIN");
    return absl::OkStatus();
  }
  return MakeError(ErrorKind::kAuthUnavailable, "the server offers no sign-in by password on this connection.");
}

absl::Status Session::OnContinuation(const Response&) {
  if (phase_ != Phase::kAuthenticate || challenges_.empty()) {
    return MakeError(ErrorKind::kProtocol, "the server asks for more where nothing is to come.");
  }
  absl::StrAppend(&output_, challenges_.back(), "\r\n");
  challenges_.pop_back();
  return absl::OkStatus();
}

absl::Status Session::OnHandshakeAnswer(const Response& response) {
  if (response.tag != handshake_tag_) {
    return MakeError(ErrorKind::kProtocol, "the server answered a command that was never given.");
  }
  switch (phase_) {
    case Phase::kCapability:
      if (response.name != "OK") return Refused(response, "CAPABILITY");
      return AfterCapabilities();
    case Phase::kStartTls:
      if (!output_.empty()) {
        return MakeError(ErrorKind::kProtocol,
                         "the server answered STARTTLS before it was sent; somebody may be tampering with the "
                         "connection.");
      }
      if (response.name != "OK") {
        return WithServerWords(MakeError(ErrorKind::kNoStartTls,
                                         absl::StrCat("the server refused STARTTLS: ", Quoted(response.text), ".")),
                               response.text);
      }
      phase_ = Phase::kNeedTls;
      return absl::OkStatus();
    case Phase::kAuthenticate: {
      if (response.name == "OK") {
        phase_ = Phase::kReady;
        return absl::OkStatus();
      }
      // RFC 5530: these say that the password was not what was wrong.
      const bool passing = response.code == "UNAVAILABLE" || response.code == "INUSE" || response.code == "LIMIT" ||
                           response.code == "SERVERBUG" || response.code == "CONTACTADMIN";
      if (passing || response.name == "BAD") return Refused(response, "to sign us in");
      return WithServerWords(
          MakeError(ErrorKind::kAuthRejected,
                    absl::StrCat("the server rejected login name or password: ", Quoted(response.text), ".")),
          response.text);
    }
    default:
      return MakeError(ErrorKind::kProtocol, "the server answered out of turn.");
  }
}

absl::Status Session::OnBodyBegin(uint32_t uid, uint64_t size) {
  return bodies == nullptr ? MakeError(ErrorKind::kProtocol, "the server sent a message that nobody asked for.")
                           : bodies->OnBodyBegin(uid, size);
}
absl::Status Session::OnBodyBytes(std::string_view bytes) { return bodies->OnBodyBytes(bytes); }
absl::Status Session::OnBodyEnd() { return bodies->OnBodyEnd(); }

}  // namespace poststelle::imap
