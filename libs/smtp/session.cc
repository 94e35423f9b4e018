#include "libs/smtp/session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "libs/base/sv.h"
#include "libs/sasl/sasl.h"
#include "libs/smtp/content.h"

namespace poststelle::smtp {
namespace {

// The server closes the connection (RFC 5321 §3.8), whatever was asked.
constexpr int kClosing = 421;
constexpr char kScram[] = "SCRAM-SHA-256";
// A shorter secret is not searched for in replies: it would be found everywhere.
constexpr size_t kShortestSecret = 4;

absl::Status Tampering(Step step, std::string_view what) {
  return MakeError(step, ErrorKind::kProtocol,
                   absl::StrCat(Av(what), "; somebody may be tampering with the connection"));
}

// A refusal, or a reply that makes no sense there.
absl::Status Refusal(Step step, std::string_view what, const Reply& reply) {
  if (reply.severity() < 4) {
    return MakeError(step, ErrorKind::kProtocol, absl::StrCat("the server's answer makes no sense to ", Av(what)),
                     false, reply);
  }
  return MakeError(step, ErrorKind::kRefused, absl::StrCat("the server refused ", Av(what)), false, reply);
}

// What a refused sign-in means (RFC 4954 §6, and what providers say).
ErrorKind ClassifyAuth(const Reply& reply) {
  if (reply.severity() < 4) return ErrorKind::kProtocol;
  if (reply.temporary()) return ErrorKind::kRefused;  // 454, 432, 421
  const std::string text = absl::AsciiStrToLower(reply.Text());
  // Exchange Online, and others in their words: the password may well be right.
  const bool switched_off =
      reply.code == 534 || reply.enhanced == "5.7.139" || reply.enhanced == "5.7.30" ||
      absl::StrContains(text, "basic authentication") || absl::StrContains(text, "authentication is disabled") ||
      absl::StrContains(text, "smtpclientauthentication") || absl::StrContains(text, "application-specific password") ||
      absl::StrContains(text, "app password") || absl::StrContains(text, "web browser");
  if (switched_off) return ErrorKind::kAuthDisabled;
  switch (reply.code) {
    case 530:  // STARTTLS first
    case 538:  // encryption required
    case 500:
    case 501:
    case 502:
    case 503:
    case 504:  // mechanism not known
      return ErrorKind::kAuthUnavailable;
    default:
      break;
  }
  return reply.code == 535 || reply.enhanced == "5.7.8" ? ErrorKind::kAuthRejected : ErrorKind::kRefused;
}

std::string_view AuthSentence(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kAuthRejected:
      return "the server rejected login name or password";
    case ErrorKind::kAuthDisabled:
      return "signing in with this password is switched off at the server";
    case ErrorKind::kAuthUnavailable:
      return "the server does not let us sign in this way";
    case ErrorKind::kProtocol:
      return "the server's answer to the sign-in makes no sense";
    default:
      return "the server refused to sign us in";
  }
}

}  // namespace

Session::Session(SessionOptions options) : options_(std::move(options)) { expected_.push_back({Ask::kGreeting}); }

Step Session::step() const {
  if (expected_.empty()) return step_;
  switch (expected_.front().ask) {
    case Ask::kGreeting:
      return Step::kGreeting;
    case Ask::kEhlo:
    case Ask::kHelo:
      return Step::kEhlo;
    case Ask::kStartTls:
      return Step::kStartTls;
    case Ask::kAuth:
      return Step::kAuth;
    case Ask::kReset:
      return Step::kReset;
    case Ask::kMail:
      return Step::kMail;
    case Ask::kRcpt:
      return Step::kRcpt;
    case Ask::kData:
    case Ask::kChunk:
      return Step::kData;
    case Ask::kFinal:
      return Step::kFinal;
    case Ask::kQuit:
      return Step::kQuit;
  }
  return step_;
}

// --- The frame ---

void Session::Command(Ask ask, std::string_view line, size_t recipient) {
  absl::StrAppend(&output_, Av(line), "\r\n");
  expected_.push_back({ask, recipient});
  state_ = State::kWaiting;
}

void Session::Receive(std::string_view bytes) {
  while (!bytes.empty() && state_ != State::kDead) {
    if (state_ == State::kNeedTls) {
      Die(Tampering(Step::kStartTls, "the server sent data between its answer to STARTTLS and the start of TLS"));
      return;
    }
    std::optional<Reply> reply;
    const absl::StatusOr<size_t> taken = parser_.Feed(bytes, reply);
    if (!taken.ok()) {
      Die(AtStep(step(), taken.status()));
      return;
    }
    bytes.remove_prefix(*taken);
    if (reply) OnReply(*std::move(reply));
  }
}

std::string Session::TakeOutput() {
  if (state_ == State::kBody) AppendPiece();
  return std::exchange(output_, {});
}

void Session::Lost(const absl::Status& network) {
  if (state_ != State::kDead) Die(AtStep(step(), network));
}

void Session::Finish(absl::Status status) {
  status_ = std::move(status);
  step_ = Step::kNone;
  state_ = State::kIdle;
}

void Session::Settle(Outcome outcome, absl::Status status) {
  sending_ = false;
  message_ = {};
  canonical_.clear();
  result_.outcome = outcome;
  result_.status = status;
  Finish(std::move(status));
}

void Session::Die(absl::Status status) {
  if (sending_) Settle(permitted_ ? Outcome::kUnknown : Outcome::kNotAccepted, status);
  status_ = std::move(status);
  step_ = Step::kNone;
  expected_.clear();
  output_.clear();
  answers_.clear();
  credentials_ = {};
  state_ = State::kDead;
}

void Session::OnUnasked(const Reply& reply) {
  // A server that closes says so when it likes, and one that has seen enough of a message may refuse it before its end.
  const bool in_message = state_ == State::kBody || state_ == State::kNeedPermit;
  if (in_message && reply.severity() >= 4) return Die(Refusal(Step::kData, "the message before its end", reply));
  if (reply.code == kClosing) return Die(Refusal(step(), "to go on", reply));
  Die(Tampering(step(), "the server answered what nobody had asked"));
}

void Session::OnReply(Reply reply) {
  ++replies_;
  // Whatever was asked is written before anything is read: an answer to what is still here came too early.
  if (expected_.empty() || !output_.empty()) return OnUnasked(reply);
  const Step step = this->step();
  const Expected expected = expected_.front();
  expected_.pop_front();
  if (expected_.empty()) step_ = step;
  const bool closing = reply.code == kClosing;
  switch (expected.ask) {
    case Ask::kGreeting:
      OnGreeting(reply);
      break;
    case Ask::kEhlo:
    case Ask::kHelo:
      if (expected.ask == Ask::kEhlo && reply.severity() == 5 && options_.encryption != Encryption::kStartTls) {
        Command(Ask::kHelo, "HELO " + options_.ehlo_name.text());  // sign-in is not to be had then
      } else {
        capabilities_ = {};
        if (reply.positive() && expected.ask == Ask::kEhlo) capabilities_ = ParseCapabilities(reply);
        OnEhlo(reply);
      }
      break;
    case Ask::kStartTls:
      OnStartTls(reply);
      break;
    case Ask::kAuth:
      OnAuth(std::move(reply));
      break;
    case Ask::kReset:
      if (!reply.positive()) {
        Die(Refusal(Step::kReset, "to begin anew", reply));
      } else {
        dirty_ = false;
        if (!sending_) {
          Finish(absl::OkStatus());
        } else if (expected_.empty()) {
          BeginMail();
        }
      }
      break;
    case Ask::kMail:
      OnMail(reply);
      break;
    case Ask::kRcpt:
      OnRecipient(std::move(reply), expected.recipient);
      break;
    case Ask::kData:
      OnData(reply);
      break;
    case Ask::kChunk:
      OnChunk(reply);
      break;
    case Ask::kFinal:
      OnFinal(reply);
      break;
    case Ask::kQuit:
      Die(absl::OkStatus());
      break;
  }
  if (closing && state_ != State::kDead) {
    // What was refused by it has been told; whatever else was asked gets no answer.
    Die(sending_ || status_.ok() ? Refusal(step, "to go on", reply) : status_);
  }
}

// --- Greeting, EHLO, STARTTLS ---

void Session::OnGreeting(const Reply& reply) {
  if (reply.code != 220) return Die(Refusal(Step::kGreeting, "to talk to us", reply));
  Command(Ask::kEhlo, "EHLO " + options_.ehlo_name.text());
}

void Session::OnEhlo(const Reply& reply) {
  if (!reply.positive()) return Die(Refusal(Step::kEhlo, "our greeting (EHLO)", reply));
  if (options_.encryption != Encryption::kStartTls || tls_) return Finish(absl::OkStatus());
  if (!capabilities_.start_tls) {
    return Die(MakeError(Step::kStartTls, ErrorKind::kNoStartTls, "the server offers no STARTTLS"));
  }
  Command(Ask::kStartTls, "STARTTLS");
}

void Session::OnStartTls(const Reply& reply) {
  if (reply.code != 220) {
    const ErrorKind kind = reply.severity() < 4 ? ErrorKind::kProtocol : ErrorKind::kNoStartTls;
    return Die(MakeError(Step::kStartTls, kind, "the server refused STARTTLS", false, reply));
  }
  step_ = Step::kTls;
  state_ = State::kNeedTls;
}

void Session::TlsStarted() {
  tls_ = true;
  if (state_ != State::kNeedTls) return;  // implicit TLS: the greeting is still to come
  capabilities_ = {};
  Command(Ask::kEhlo, "EHLO " + options_.ehlo_name.text());
}

// --- Sign-in ---

bool Session::Ended(Step step) {
  if (state_ != State::kDead) return false;
  if (status_.ok()) status_ = MakeError(step, ErrorKind::kNetwork, "the connection has ended", true);
  return true;
}

void Session::SignIn(const Credentials& credentials) {
  if (Ended(Step::kAuth)) return;
  step_ = Step::kAuth;
  if (options_.encryption != Encryption::kNone && !tls_) {
    return Die(MakeError(Step::kAuth, ErrorKind::kNoStartTls, "the connection is not encrypted, so nobody signs in"));
  }
  credentials_ = credentials;
  mechanisms_.clear();
  const std::string_view known[] = {kScram, "PLAIN", "LOGIN"};
  for (const std::string_view mechanism : known) {
    if (mechanism == kScram && !sasl::ScramSha256::CanUse(credentials.login, credentials.password)) continue;
    if (capabilities_.auth.contains(std::string(mechanism))) mechanisms_.push_back(mechanism);
  }
  if (!mechanisms_.empty()) return BeginAuth();
  if (capabilities_.auth.empty()) {
    return Finish(MakeError(Step::kAuth, ErrorKind::kAuthUnavailable,
                            capabilities_.start_tls && !tls_
                                ? "the server offers no sign-in on this connection, perhaps only after STARTTLS"
                                : "the server offers no sign-in on this connection"));
  }
  Finish(MakeError(Step::kAuth, ErrorKind::kAuthDisabled,
                   absl::StrCat("the server offers no sign-in by password, only ",
                                Printable(absl::StrJoin(capabilities_.auth, ", "), 200))));
}

void Session::BeginAuth() {
  const std::string_view mechanism = mechanisms_.front();
  answers_.clear();
  scram_.reset();
  auth_cancelled_ = false;
  const absl::StatusOr<SecretString> plain = sasl::Plain(credentials_.login, credentials_.password);
  if (!plain.ok()) {
    return Finish(MakeError(Step::kAuth, ErrorKind::kUnfit, "login name or password hold a NUL, which can't be sent"));
  }
  const SecretString password = sasl::Base64(credentials_.password.Reveal());
  sent_ = {credentials_.password, password, *plain};
  if (mechanism == kScram) {
    scram_.emplace(credentials_.login, credentials_.password, options_.nonce());
    const std::string first = absl::Base64Escape(scram_->ClientFirst());
    const std::string line = absl::StrCat("AUTH ", kScram, " ", first);
    if (line.size() + 2 <= kMaxCommandLine) return Command(Ask::kAuth, line);
    answers_.emplace_back(first);
    return Command(Ask::kAuth, absl::StrCat("AUTH ", kScram));
  }
  if (mechanism == "PLAIN") {
    answers_ = {*plain};  // for a server that asks once more for what came with the command
    const std::string line = absl::StrCat("AUTH PLAIN ", Av(plain->Reveal()));
    return Command(Ask::kAuth, line.size() + 2 <= kMaxCommandLine ? line : "AUTH PLAIN");  // RFC 4954 §4
  }
  answers_.push_back(sasl::Base64(credentials_.login));
  answers_.push_back(password);
  Command(Ask::kAuth, "AUTH LOGIN");
}

void Session::Redact(Reply& reply) const {
  for (const SecretString& secret : sent_) {
    if (secret.Reveal().size() < kShortestSecret) continue;
    for (std::string& line : reply.lines) absl::StrReplaceAll({{Av(secret.Reveal()), "…"}}, &line);
  }
}

void Session::OnAuth(Reply reply) {
  Redact(reply);
  if (reply.code == 334) {
    if (auth_cancelled_) return Die(Refusal(Step::kAuth, "the end of the sign-in", reply));
    if (scram_ && answers_.empty()) return OnScramChallenge(reply);
    auth_cancelled_ = answers_.empty();
    Command(Ask::kAuth, auth_cancelled_ ? "*" : answers_.front().Reveal());
    if (!auth_cancelled_) answers_.pop_front();
    return;
  }
  answers_.clear();
  const ErrorKind refusal = ClassifyAuth(reply);
  const bool knows_no_scram = scram_ && tls_ && refusal == ErrorKind::kAuthRejected;
  if (!auth_cancelled_ && mechanisms_.size() > 1 && (reply.code == 504 || knows_no_scram)) {
    mechanisms_.pop_front();
    return BeginAuth();
  }
  const bool proven = !scram_ || scram_->verified();
  scram_.reset();
  credentials_ = {};
  sent_.clear();
  if (reply.positive() && !auth_cancelled_) {
    if (proven) return Finish(absl::OkStatus());
    return Die(Tampering(Step::kAuth, "the server let us in without a proof that it knows the password"));
  }
  const ErrorKind kind = auth_cancelled_ ? ErrorKind::kProtocol : refusal;
  absl::Status refused =
      MakeError(Step::kAuth, kind,
                auth_cancelled_ ? "the server asks for more than the sign-in has" : AuthSentence(kind), false, reply);
  if (kind == ErrorKind::kProtocol) return Die(std::move(refused));
  Finish(std::move(refused));
}

void Session::OnScramChallenge(const Reply& reply) {
  std::string challenge;
  const bool decoded = reply.lines.size() == 1 && absl::Base64Unescape(reply.lines[0], &challenge);
  if (scram_->verified()) {  // the server goes on after its last word
    auth_cancelled_ = true;
    return Command(Ask::kAuth, "*");
  }
  if (decoded && !scram_->answered()) {
    const absl::StatusOr<SecretString> final = scram_->ClientFinal(challenge);
    if (final.ok()) return Command(Ask::kAuth, sasl::Base64(final->Reveal()).Reveal());
  } else if (decoded) {
    const absl::Status proof = scram_->Verify(challenge);
    if (proof.ok()) return Command(Ask::kAuth, "");
    // The server's verdict follows; nothing is left to say.
    if (absl::IsPermissionDenied(proof)) return Command(Ask::kAuth, "");
  }
  auth_cancelled_ = true;
  Command(Ask::kAuth, "*");
}

// --- A message ---

size_t Session::tail() const { return message_.size() - std::min(message_.size(), kTailBytes); }

void Session::Send(Envelope envelope, std::string_view message) {
  result_ = {};
  result_.recipients.resize(envelope.recipients.size());
  if (Ended(Step::kMail)) {
    result_.status = status_;
    return;
  }
  envelope_ = std::move(envelope);
  permitted_ = false;
  mail_status_ = absl::OkStatus();
  step_ = Step::kMail;
  const ContentTraits traits = ScanContent(message);
  absl::Status fit = CheckContent(traits);
  if (fit.ok() && envelope_.recipients.empty()) {
    fit = MakeError(Step::kRcpt, ErrorKind::kUnfit, "the message has no recipients");
  }
  const auto ascii = [](const Address& a) { return a.ascii(); };
  const bool utf8 = traits.eight_bit_header || !envelope_.sender.ascii() ||
                    !std::all_of(envelope_.recipients.begin(), envelope_.recipients.end(), ascii);
  if (fit.ok() && utf8 && !capabilities_.smtp_utf8) {
    fit = MakeError(Step::kMail, ErrorKind::kUnsupported,
                    "an address or a header field is not ASCII, and the server offers no SMTPUTF8");
  }
  if (fit.ok() && traits.eight_bit && !capabilities_.eight_bit_mime) {
    fit = MakeError(Step::kMail, ErrorKind::kUnsupported,
                    "the message holds 8-bit text, and the server offers no 8BITMIME");
  }
  if (!fit.ok()) return Settle(Outcome::kNotAccepted, std::move(fit));
  if (!traits.canonical) canonical_ = Canonical(message);
  message_ = traits.canonical ? message : std::string_view(canonical_);
  if (capabilities_.max_size > 0 && message_.size() > capabilities_.max_size) {
    return Settle(Outcome::kNotAccepted, MakeError(Step::kMail, ErrorKind::kTooLarge,
                                                   absl::StrCat("the message has ", message_.size(),
                                                                " bytes; the server takes ", capabilities_.max_size)));
  }
  position_ = chunk_end_ = 0;
  chunking_ = options_.use_chunking && capabilities_.chunking;
  parameters_ = capabilities_.size ? absl::StrCat(" SIZE=", message_.size()) : "";
  if (traits.eight_bit) parameters_ += " BODY=8BITMIME";
  if (utf8) parameters_ += " SMTPUTF8";
  sending_ = true;
  if (dirty_) Command(Ask::kReset, "RSET");
  if (!dirty_ || capabilities_.pipelining) BeginMail();
}

void Session::BeginMail() {
  Command(Ask::kMail, absl::StrCat("MAIL FROM:<", envelope_.sender.text(), ">", parameters_));
  // DATA stays out of this group: with no recipient left there would be no way back from a 354 but an empty message.
  if (capabilities_.pipelining) NextRecipients(0);
}

void Session::NextRecipients(size_t begin) {
  const size_t group = capabilities_.pipelining ? kPipelinedRecipients : 1;
  const size_t end = begin + std::min(group, envelope_.recipients.size() - begin);
  for (size_t i = begin; i < end; ++i) {
    Command(Ask::kRcpt, absl::StrCat("RCPT TO:<", envelope_.recipients[i].text(), ">"), i);
  }
}

void Session::OnMail(const Reply& reply) {
  if (reply.severity() == 3) return Die(Refusal(Step::kMail, "the sender", reply));
  if (!reply.positive()) {
    dirty_ = true;
    mail_status_ = Refusal(Step::kMail, "the sender", reply);
    if (expected_.empty() || reply.code == kClosing) Settle(Outcome::kNotAccepted, mail_status_);
    return;
  }
  if (expected_.empty()) NextRecipients(0);
}

void Session::OnRecipient(Reply reply, size_t recipient) {
  if (reply.severity() == 3) return Die(Refusal(Step::kRcpt, "a recipient", reply));
  // After a refused MAIL these say nothing about the recipients.
  if (mail_status_.ok()) result_.recipients[recipient] = std::move(reply);
  if (!expected_.empty()) return;
  const size_t next = recipient + 1;
  if (mail_status_.ok() && next < envelope_.recipients.size() && result_.recipients[recipient].code != kClosing) {
    return NextRecipients(next);
  }
  RecipientsDone();
}

void Session::RecipientsDone() {
  dirty_ = true;
  if (!mail_status_.ok()) return Settle(Outcome::kNotAccepted, mail_status_);
  if (result_.recipients.back().code == kClosing) {
    return Settle(Outcome::kNotAccepted, Refusal(Step::kRcpt, "to go on", result_.recipients.back()));
  }
  const auto accepted = [](const Reply& r) { return r.positive(); };
  if (std::none_of(result_.recipients.begin(), result_.recipients.end(), accepted)) {
    const auto temporary = [](const Reply& r) { return r.temporary(); };
    const bool may_pass = std::any_of(result_.recipients.begin(), result_.recipients.end(), temporary);
    const bool alone = result_.recipients.size() == 1;
    return Settle(Outcome::kNotAccepted, MakeError(Step::kRcpt, ErrorKind::kRefused,
                                                   alone ? "the server refused the recipient"
                                                         : "the server refused every recipient, the first with",
                                                   may_pass, result_.recipients.front()));
  }
  if (!chunking_) return Command(Ask::kData, "DATA");
  step_ = Step::kData;
  NextChunk();
}

void Session::OnData(const Reply& reply) {
  if (reply.code != 354) {
    absl::Status refused = Refusal(Step::kData, "the message", reply);
    if (reply.severity() < 4) return Die(std::move(refused));
    return Settle(Outcome::kNotAccepted, std::move(refused));
  }
  chunk_end_ = tail();
  state_ = position_ == chunk_end_ ? State::kNeedPermit : State::kBody;
}

void Session::NextChunk() {
  if (position_ == tail()) {
    state_ = State::kNeedPermit;
    return;
  }
  chunk_end_ = std::min(tail(), position_ + kChunkBytes);
  Command(Ask::kChunk, absl::StrCat("BDAT ", chunk_end_ - position_));
  state_ = State::kBody;
}

void Session::AppendPiece() {
  const size_t end = std::min(chunk_end_, position_ + kPieceBytes);
  if (chunking_) {
    output_.append(message_.substr(position_, end - position_));
  } else {
    AppendDotStuffed(message_, position_, end, output_);
  }
  position_ = end;
  if (position_ == chunk_end_) state_ = chunking_ ? State::kWaiting : State::kNeedPermit;
}

void Session::OnChunk(const Reply& reply) {
  const bool whole = state_ == State::kWaiting;
  if (reply.positive() && whole) return NextChunk();
  absl::Status refused = Refusal(Step::kData, "the message", reply);
  // The rest of a chunk that is under way can't be taken back.
  if (reply.severity() < 4 || !whole) return Die(std::move(refused));
  Settle(Outcome::kNotAccepted, std::move(refused));
}

void Session::Permit() {
  if (state_ != State::kNeedPermit) return;
  permitted_ = true;
  const size_t begin = std::exchange(position_, message_.size());
  if (chunking_) {
    Command(Ask::kFinal, absl::StrCat("BDAT ", message_.size() - begin, " LAST"));
    output_.append(message_.substr(begin));
    return;
  }
  AppendDotStuffed(message_, begin, message_.size(), output_);
  Command(Ask::kFinal, ".");
}

void Session::Withhold(const absl::Status& reason) {
  if (state_ != State::kNeedPermit) return;
  absl::Status withheld =
      MakeError(step_, ErrorKind::kNoPermit,
                absl::StrCat("the message was not sent: ", Printable(Sv(reason.message()), kMaxReplyText)), true);
  if (!chunking_) return Die(std::move(withheld));
  Settle(Outcome::kNotAccepted, std::move(withheld));
}

void Session::OnFinal(const Reply& reply) {
  result_.final_reply = reply;
  if (reply.severity() == 3) return Die(Refusal(Step::kFinal, "the message", reply));
  dirty_ = !reply.positive();  // it should have ended the transaction as well; RSET makes sure
  if (reply.positive()) return Settle(Outcome::kAccepted, absl::OkStatus());
  Settle(Outcome::kNotAccepted, Refusal(Step::kFinal, "the message", reply));
}

// --- The rest ---

void Session::Reset() {
  if (Ended(Step::kReset)) return;
  step_ = Step::kReset;
  Command(Ask::kReset, "RSET");
}

void Session::Quit() {
  if (state_ == State::kDead) return;
  step_ = Step::kQuit;
  Command(Ask::kQuit, "QUIT");
}

}  // namespace poststelle::smtp
