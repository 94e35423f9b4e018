#include "libs/imap/client.h"

#include <algorithm>
#include <charconv>

#include "absl/strings/str_cat.h"
#include "libs/base/server_words.h"
#include "libs/base/status_macros.h"
#include "libs/base/sv.h"
#include "libs/imap/quote.h"

namespace poststelle::imap {
namespace {

constexpr size_t kReadBuffer = 64 << 10;
constexpr absl::Duration kMaxCommandTime = absl::Minutes(30);
constexpr size_t kUidsPerFetch = 16;
constexpr size_t kRangesPerSearch = 500;
constexpr size_t kRangesPerChange = 200;
constexpr size_t kMaxFound = 100;
constexpr size_t kMaxSearchResults = 4'000'000;  // of one search, over all its answers

SessionOptions ForSession(const ConnectOptions& options) {
  SessionOptions out;
  out.encryption = options.encryption;
  out.login = options.login;
  out.password = options.password;
  out.max_body_bytes = options.limits.max_body_bytes;
  if (options.known_servers != nullptr) out.remembered = options.known_servers->Find(options.server);
  for (const std::string& folder : options.folders) {
    absl::StatusOr<std::string> quoted = QuoteFolder(folder);
    if (!quoted.ok()) {
      out.behind_sign_in.clear();  // a name that can't be sent is told by ExamineAll()
      break;
    }
    out.behind_sign_in.push_back("EXAMINE " + *quoted);
  }
  return out;
}

absl::Status Refusal(const Response& answer, std::string_view what) {
  absl::Status refusal =
      WithServerWords(MakeError(ErrorKind::kServerRefused,
                                absl::StrCat("the server refused ", Av(what), ": ", Quoted(answer.text), ".")),
                      answer.text);
  return IsPassing(answer) ? Passing(std::move(refusal)) : refusal;
}

template <typename T>
T NumberOr0(const std::string& text) {
  T out = 0;
  std::from_chars(text.data(), text.data() + text.size(), out);
  return out;
}

// Bodies on their way to a sink. Every known server tells the UID first. The body of one that tells it behind is taken
// only where a single message was asked for, whose it must be; otherwise it would have to be kept until then.
class BodyRouter : public ResponseHandler {
 public:
  // `alone`: the one UID that was asked for, or 0 if there were several.
  BodyRouter(BodySink& sink, uint32_t alone) : sink_(sink), alone_(alone) {}
  absl::Status OnResponse(Response) override { return absl::OkStatus(); }
  absl::Status OnBodyBegin(uint32_t uid, uint64_t size) override {
    assumed_ = uid == 0;
    uid_ = assumed_ ? alone_ : uid;
    return uid_ == 0 ? absl::OkStatus() : sink_.Begin(uid_, size);
  }
  absl::Status OnBodyBytes(std::string_view bytes) override {
    return uid_ == 0 ? absl::OkStatus() : sink_.Append(bytes);
  }
  absl::Status OnBodyEnd() override { return assumed_ ? absl::OkStatus() : Finish(); }
  // The end of the FETCH response, with the UID at last.
  absl::Status OnFetch(const FetchItems& items) {
    const bool assumed = std::exchange(assumed_, false);
    if (!items.has_body || !items.uid) return absl::OkStatus();
    if (assumed) return uid_ == *items.uid ? Finish() : absl::OkStatus();
    if (std::find(delivered.begin(), delivered.end(), *items.uid) == delivered.end()) {
      uid_ = *items.uid;  // an empty body (NIL)
      PS_RETURN_IF_ERROR(sink_.Begin(uid_, 0));
      return Finish();
    }
    return absl::OkStatus();
  }
  std::vector<uint32_t> delivered;

 private:
  absl::Status Finish() {
    delivered.push_back(uid_);
    return sink_.End(uid_);
  }
  BodySink& sink_;
  const uint32_t alone_;
  uint32_t uid_ = 0;      // whose body is coming; 0: nobody knows
  bool assumed_ = false;  // its UID was not told yet
};

}  // namespace

Client::Client(std::unique_ptr<net::Stream> stream, const ConnectOptions& options)
    : stream_(std::move(stream)), timeouts_(options.timeouts), session_(ForSession(options)), buffer_(kReadBuffer) {}

async::Task<absl::StatusOr<std::unique_ptr<Client>>> Client::Connect(std::unique_ptr<net::Stream> stream,
                                                                     ConnectOptions options) {
  std::unique_ptr<Client> client(new Client(std::move(stream), options));
  client->CollectFolders();
  absl::Status connected = co_await client->Handshake(options);
  client->RememberServer(options, connected);
  if (!connected.ok()) co_return connected;
  client->early_tags_ = client->session_.behind_tags();
  if (!client->early_tags_.empty()) client->examined_early_ = options.folders;
  co_return client;
}

void Client::RememberServer(const ConnectOptions& options, const absl::Status& connected) {
  if (options.known_servers == nullptr) return;
  if (connected.ok()) {
    if (!session_.sign_in_capabilities().empty()) {
      options.known_servers->Remember(options.server, session_.sign_in_capabilities());
    }
    return;
  }
  if (!session_.early()) return;
  // A password that was rejected, or a server that has no room, has nothing to do with what was remembered, unless it
  // is not true any more.
  const bool ours = net::IsNetError(connected) && net::GetNetError(connected) == net::NetError::kCancelled;
  const bool theirs =
      GetErrorKind(connected) == ErrorKind::kAuthRejected || GetErrorKind(connected) == ErrorKind::kServerBye;
  const bool still_true = session_.sign_in_capabilities() == options.known_servers->Find(options.server);
  if (!ours && !(theirs && still_true)) options.known_servers->Failed(options.server);
}

void Client::CollectFolders() {
  folder_ = FolderState();
  opened_.clear();
  session_.on_tagged = [this](const Response& r) { opened_[r.tag] = std::exchange(folder_, FolderState()); };
  session_.on_untagged = [this](Response& r) -> absl::Status {
    if (r.code == "CLOSED") folder_ = FolderState();  // RFC 7162 §3.2.11: until here it was about the one before
    if (r.name == "EXISTS") folder_.exists = r.number;
    if (r.code == "UIDVALIDITY") folder_.uid_validity = NumberOr0<uint32_t>(r.code_value);
    if (r.code == "UIDNEXT") folder_.uid_next = NumberOr0<uint32_t>(r.code_value);
    if (r.code == "HIGHESTMODSEQ") folder_.highest_modseq = NumberOr0<uint64_t>(r.code_value);
    return absl::OkStatus();
  };
}

void Client::Tell(const ConnectOptions& options, ConnectStep step) {
  if (told_ == step) return;
  told_ = step;
  if (options.on_step) options.on_step(step, *stream_);
}

async::Task<absl::Status> Client::Handshake(const ConnectOptions& options) {
  const net::TlsOptions& tls = options.tls;
  if (options.encryption == Encryption::kTls) {
    Tell(options, ConnectStep::kTls);
    PS_CO_RETURN_IF_ERROR(co_await stream_->StartTls(tls, timeouts_.tls));
    session_.TlsStarted();
  }
  const absl::Time deadline = absl::Now() + kMaxCommandTime;
  while (session_.phase() != Session::Phase::kReady) {
    if (absl::Now() > deadline) co_return MakeError(ErrorKind::kTimeout, "the server did not finish the sign-in.");
    const Session::Phase phase = session_.phase();
    if (phase == Session::Phase::kStartTls || phase == Session::Phase::kNeedTls) Tell(options, ConnectStep::kTls);
    if (phase == Session::Phase::kGreeting) Tell(options, ConnectStep::kGreeting);
    if (phase == Session::Phase::kAuthenticate) Tell(options, ConnectStep::kSignIn);
    if (phase == Session::Phase::kNeedTls) {
      PS_CO_RETURN_IF_ERROR(co_await stream_->StartTls(tls, timeouts_.tls));
      session_.TlsStarted();
    }
    PS_CO_RETURN_IF_ERROR(co_await Flush());
    const std::string_view what = phase == Session::Phase::kGreeting       ? "its greeting"
                                  : phase == Session::Phase::kAuthenticate ? "the sign-in"
                                  : phase == Session::Phase::kStartTls     ? "STARTTLS"
                                                                           : "CAPABILITY";
    absl::Status read = co_await ReadOnce(what);
    // An answer may begin a step and end it at once: no way to sign in.
    if (!read.ok() && session_.phase() == Session::Phase::kAuthenticate) Tell(options, ConnectStep::kSignIn);
    PS_CO_RETURN_IF_ERROR(read);
  }
  Tell(options, ConnectStep::kSignIn);
  co_return absl::OkStatus();
}

async::Task<absl::Status> Client::Flush() {
  const std::string output = session_.TakeOutput();
  if (output.empty()) co_return absl::OkStatus();
  co_return co_await stream_->Write(output, timeouts_.command);
}

async::Task<absl::Status> Client::ReadOnce(std::string_view what) {
  stream_->Expect(session_.expected());
  absl::StatusOr<size_t> got = co_await stream_->ReadSome(buffer_.data(), buffer_.size(), timeouts_.command);
  if (!got.ok()) {
    if (net::GetNetError(got.status()) == net::NetError::kTimeout) {
      co_return MakeError(ErrorKind::kTimeout,
                          absl::StrCat("the server was silent for ", absl::FormatDuration(timeouts_.command),
                                       " while we waited for ", Av(what), "."));
    }
    co_return session_.Ended(got.status());
  }
  co_return session_.Receive(std::string_view(buffer_.data(), *got));
}

async::Task<absl::StatusOr<Response>> Client::Await(std::string tag, std::string what) {
  PS_CO_RETURN_IF_ERROR(co_await Flush());
  const absl::Time deadline = absl::Now() + kMaxCommandTime;
  absl::Status result;
  Response tagged;
  while (!session_.Done(tag, result, &tagged)) {
    if (absl::Now() > deadline) {
      co_return MakeError(ErrorKind::kTimeout, absl::StrCat("the server did not finish ", what, " within ",
                                                            absl::FormatDuration(kMaxCommandTime), "."));
    }
    PS_CO_RETURN_IF_ERROR(co_await ReadOnce(what));
  }
  co_return tagged;
}

async::Task<absl::StatusOr<FolderState>> Client::AwaitOpened(std::string tag, std::string folder) {
  PS_CO_ASSIGN_OR_RETURN(Response answer, co_await Await(tag, "opening the folder"));
  if (answer.name != "OK") {
    absl::Status closed =
        MakeError(IsPassing(answer) ? ErrorKind::kServerRefused : ErrorKind::kFolderMissing,
                  absl::StrCat("the server does not open the folder ", Quoted(folder), ": ", Quoted(answer.text), "."));
    co_return WithServerWords(std::move(closed), answer.text);
  }
  co_return opened_[tag];
}

async::Task<absl::StatusOr<FolderState>> Client::Examine(std::string folder) {
  std::vector<std::string> one{std::move(folder)};
  PS_CO_ASSIGN_OR_RETURN(std::vector<absl::StatusOr<FolderState>> states, co_await ExamineAll(std::move(one)));
  co_return std::move(states.front());
}

async::Task<absl::StatusOr<std::vector<absl::StatusOr<FolderState>>>> Client::ExamineAll(
    std::vector<std::string> folders) {
  std::vector<std::string> tags = std::exchange(early_tags_, {});
  if (tags.empty() || examined_early_ != folders) {
    for (const std::string& tag : tags) PS_CO_RETURN_IF_ERROR((co_await Await(tag, "opening the folder")).status());
    CollectFolders();
    tags.clear();
    for (const std::string& folder : folders) {
      absl::StatusOr<std::string> quoted = QuoteFolder(folder);
      tags.push_back(quoted.ok() ? session_.Send("EXAMINE " + *quoted) : "");
    }
  }
  std::vector<absl::StatusOr<FolderState>> states;
  for (size_t i = 0; i < folders.size(); ++i) {
    if (tags[i].empty()) {
      states.emplace_back(MakeError(ErrorKind::kFolderMissing, "the folder name is no valid text"));
      continue;
    }
    absl::StatusOr<FolderState> state = co_await AwaitOpened(tags[i], folders[i]);
    const ErrorKind kind = GetErrorKind(state.status());
    if (!state.ok() && kind != ErrorKind::kServerRefused && kind != ErrorKind::kFolderMissing) {
      co_return state.status();
    }
    states.push_back(std::move(state));
  }
  session_.on_tagged = nullptr;
  co_return states;
}

async::Task<absl::StatusOr<WritableFolder>> Client::Select(std::string folder) {
  absl::StatusOr<std::string> quoted = QuoteFolder(folder);
  if (!quoted.ok()) co_return MakeError(ErrorKind::kFolderMissing, std::string(quoted.status().message()));
  for (const std::string& tag : std::exchange(early_tags_, {})) {
    PS_CO_RETURN_IF_ERROR((co_await Await(tag, "opening the folder")).status());
  }
  WritableFolder out;
  CollectFolders();
  const std::string tag = session_.Send("SELECT " + *quoted);
  // Asked for rather than remembered: not every server tells of itself what it can do once somebody is signed in.
  const std::string capabilities = session_.Send("CAPABILITY");
  auto opened = [this, &out, &tag](const Response& r) {
    if (r.tag == tag && r.code == "READ-ONLY") out.read_only = true;
    opened_[r.tag] = std::exchange(folder_, FolderState());
  };
  session_.on_tagged = opened;
  absl::StatusOr<FolderState> state = co_await AwaitOpened(tag, folder);
  absl::StatusOr<Response> told = co_await Await(capabilities, "CAPABILITY");
  session_.on_tagged = nullptr;
  session_.on_untagged = nullptr;
  if (!state.ok()) co_return state.status();
  if (!told.ok()) co_return told.status();
  out.state = *state;
  const bool rev2 = session_.Has("IMAP4REV2");  // RFC 9051 holds both
  out.move = rev2 || session_.Has("MOVE");
  out.uid_expunge = rev2 || session_.Has("UIDPLUS");
  co_return out;
}

// Runs "UID `before` SET`behind`" for all of `uids`, with as few commands as their ranges allow.
async::Task<absl::Status> Client::Change(std::vector<uint32_t> uids, std::string before, std::string behind,
                                         std::string what) {
  session_.on_untagged = nullptr;  // flags and removals are told of what we change; they say nothing new
  std::vector<std::string> tags;
  for (const std::string& set : SequenceSets(std::move(uids), kRangesPerChange)) {
    tags.push_back(session_.Send(absl::StrCat("UID ", before, " ", set, behind)));
  }
  absl::Status result;
  for (const std::string& tag : tags) {
    PS_CO_ASSIGN_OR_RETURN(Response answer, co_await Await(tag, what));
    if (answer.name == "OK" || !result.ok()) continue;
    result = Refusal(answer, what);
    if (answer.code == "TRYCREATE" || answer.code == "NONEXISTENT") {
      result = MakeError(ErrorKind::kFolderMissing, std::string(result.message()));
    }
  }
  co_return result;
}

async::Task<absl::Status> Client::AddFlag(std::vector<uint32_t> uids, std::string flag) {
  co_return co_await Change(std::move(uids), "STORE", absl::StrCat(" +FLAGS.SILENT (", flag, ")"), "to set a flag");
}

async::Task<absl::Status> Client::Move(std::vector<uint32_t> uids, std::string target_folder) {
  absl::StatusOr<std::string> quoted = QuoteFolder(target_folder);
  if (!quoted.ok()) co_return MakeError(ErrorKind::kFolderMissing, std::string(quoted.status().message()));
  co_return co_await Change(std::move(uids), "MOVE", " " + *quoted,
                            absl::StrCat("to move messages to ", target_folder));
}

async::Task<absl::Status> Client::Copy(std::vector<uint32_t> uids, std::string target_folder) {
  absl::StatusOr<std::string> quoted = QuoteFolder(target_folder);
  if (!quoted.ok()) co_return MakeError(ErrorKind::kFolderMissing, std::string(quoted.status().message()));
  co_return co_await Change(std::move(uids), "COPY", " " + *quoted,
                            absl::StrCat("to copy messages to ", target_folder));
}

async::Task<absl::Status> Client::UidExpunge(std::vector<uint32_t> uids) {
  co_return co_await Change(std::move(uids), "EXPUNGE", "", "to remove messages");
}

async::Task<absl::Status> Client::FetchInfos(UidRange range, bool with_header_fields,
                                             std::function<absl::Status(MessageInfo)> on_message) {
  auto untagged = [&](Response& r) -> absl::Status {
    if (r.name != "FETCH") return absl::OkStatus();
    if (!r.fetch.uid) {
      if (!r.fetch.size) return absl::OkStatus();  // unasked: a flag changed
      return MakeError(ErrorKind::kProtocol, "the server lists a message without its UID.");
    }
    MessageInfo info;
    info.uid = *r.fetch.uid;
    if (!r.fetch.size) info.lacks = "RFC822.SIZE";
    if (!r.fetch.internal_date) info.lacks = r.fetch.size ? "INTERNALDATE" : "RFC822.SIZE and INTERNALDATE";
    info.size = r.fetch.size.value_or(0);
    info.internal_date_unix = r.fetch.internal_date.value_or(0);
    info.seen = r.fetch.seen;
    info.deleted = r.fetch.deleted;
    info.header_fields = std::move(r.fetch.header).value_or("");
    return on_message(std::move(info));
  };
  session_.on_untagged = untagged;
  const std::string to = range.to == kMaxUid ? "*" : absl::StrCat(range.to);
  const std::string fields = with_header_fields ? " BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE FROM)]" : "";
  const std::string command =
      absl::StrCat("UID FETCH ", range.from, ":", to, " (UID FLAGS INTERNALDATE RFC822.SIZE", fields, ")");
  PS_CO_ASSIGN_OR_RETURN(Response answer, co_await Await(session_.Send(command), "the list of messages"));
  if (answer.name == "OK") co_return absl::OkStatus();
  co_return Refusal(answer, "the list of messages");
}

async::Task<absl::StatusOr<FetchBodiesResult>> Client::FetchBodies(std::vector<uint32_t> uids, BodySink& sink) {
  BodyRouter router(sink, uids.size() == 1 ? uids.front() : 0);
  auto untagged = [&router](Response& r) -> absl::Status {
    return r.name == "FETCH" ? router.OnFetch(r.fetch) : absl::OkStatus();
  };
  session_.on_untagged = untagged;
  session_.bodies = &router;
  FetchBodiesResult result;
  std::vector<std::string> tags;
  for (size_t i = 0; i < uids.size(); i += kUidsPerFetch) {
    std::vector<uint32_t> some(uids.begin() + static_cast<std::ptrdiff_t>(i),
                               uids.begin() + static_cast<std::ptrdiff_t>(std::min(uids.size(), i + kUidsPerFetch)));
    for (const std::string& set : SequenceSets(some, kUidsPerFetch)) {
      tags.push_back(session_.Send(absl::StrCat("UID FETCH ", set, " (UID BODY.PEEK[])")));
    }
  }
  absl::Status status;
  for (const std::string& tag : tags) {
    absl::StatusOr<Response> answer = co_await Await(tag, "messages");
    if (!answer.ok()) {
      status = answer.status();
      break;
    }
    if (answer->name == "OK") continue;
    result.refusal = Quoted(answer->text);
    result.passing = result.passing || IsPassing(*answer);
  }
  session_.bodies = nullptr;
  session_.on_untagged = nullptr;
  if (!status.ok()) co_return status;
  for (uint32_t uid : uids) {
    if (std::find(router.delivered.begin(), router.delivered.end(), uid) == router.delivered.end()) {
      result.missing.push_back(uid);
    }
  }
  co_return result;
}

async::Task<absl::StatusOr<std::string>> Client::FetchHeader(uint32_t uid, uint32_t max_bytes) {
  std::optional<std::string> header;
  auto untagged = [&header, uid](Response& r) -> absl::Status {
    if (r.name == "FETCH" && r.fetch.uid == uid && r.fetch.header) header = r.fetch.header;
    return absl::OkStatus();
  };
  session_.on_untagged = untagged;
  const std::string command = absl::StrCat("UID FETCH ", uid, " (UID BODY.PEEK[HEADER]<0.", max_bytes, ">)");
  PS_CO_ASSIGN_OR_RETURN(Response answer, co_await Await(session_.Send(command), "the headers of a message"));
  if (answer.name != "OK") co_return Refusal(answer, absl::StrCat("the headers of message ", uid));
  if (!header) co_return absl::NotFoundError(absl::StrCat("the headers of message ", uid, " were not delivered"));
  co_return *header;
}

async::Task<absl::StatusOr<std::vector<uint32_t>>> Client::Search(std::vector<std::string> commands) {
  std::vector<uint32_t> found;
  auto untagged = [&found](Response& r) -> absl::Status {
    // IMAP4rev2 alone answers so; taken for no answer, mail that is there would count as deleted.
    if (r.name == "ESEARCH") return MakeError(ErrorKind::kProtocol, "the server answers searches with ESEARCH only.");
    if (r.name != "SEARCH") return absl::OkStatus();
    if (found.size() + r.numbers.size() > kMaxSearchResults) {
      return MakeError(ErrorKind::kProtocol, "the server found more messages than there can be.");
    }
    found.insert(found.end(), r.numbers.begin(), r.numbers.end());
    return absl::OkStatus();
  };
  session_.on_untagged = untagged;
  std::vector<std::string> tags;
  tags.reserve(commands.size());
  for (const std::string& command : commands) tags.push_back(session_.Send(command));
  for (const std::string& tag : tags) {
    PS_CO_ASSIGN_OR_RETURN(Response answer, co_await Await(tag, "a search"));
    if (answer.name != "OK") co_return Refusal(answer, "a search");
  }
  co_return found;
}

async::Task<absl::StatusOr<std::vector<uint32_t>>> Client::SearchUnseen(std::vector<uint32_t> uids) {
  std::vector<std::string> commands;
  for (const std::string& set : SequenceSets(std::move(uids), kRangesPerSearch)) {
    commands.push_back(absl::StrCat("UID SEARCH UNSEEN UID ", set));
  }
  co_return co_await Search(std::move(commands));
}

async::Task<absl::StatusOr<std::vector<uint32_t>>> Client::SearchUids(std::vector<uint32_t> uids) {
  std::vector<std::string> commands;
  for (const std::string& set : SequenceSets(std::move(uids), kRangesPerSearch)) {
    commands.push_back(absl::StrCat("UID SEARCH UID ", set));
  }
  co_return co_await Search(std::move(commands));
}

async::Task<absl::StatusOr<std::vector<uint32_t>>> Client::SearchMessageId(std::string message_id) {
  PS_CO_ASSIGN_OR_RETURN(std::string quoted, Quote(message_id));
  std::vector<std::string> commands{absl::StrCat("UID SEARCH HEADER MESSAGE-ID ", quoted)};
  PS_CO_ASSIGN_OR_RETURN(std::vector<uint32_t> found, co_await Search(std::move(commands)));
  if (found.size() > kMaxFound) found.resize(kMaxFound);
  co_return found;
}

async::Task<absl::Status> Client::Leave() {
  session_.on_untagged = nullptr;
  session_.Send("LOGOUT");
  absl::Status written = co_await Flush();
  stream_->Close();
  co_return written;
}

async::Task<absl::Status> Client::Logout() {
  session_.on_untagged = nullptr;
  PS_CO_ASSIGN_OR_RETURN(Response answer, co_await Await(session_.Send("LOGOUT"), "LOGOUT"));
  stream_->Close();
  co_return answer.name == "OK" ? absl::OkStatus() : MakeError(ErrorKind::kServerRefused, "the server refused LOGOUT.");
}

}  // namespace poststelle::imap
