#include "services/fetcher/message_fetcher.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "libs/base/failpoint.h"
#include "libs/base/reason.h"
#include "libs/base/status_macros.h"
#include "libs/mail/digest.h"
#include "libs/mail/scan.h"
#include "libs/observe/log.h"
#include "services/fetcher/failure_policy.h"
#include "services/fetcher/message_content.h"
#include "services/fetcher/publish.h"

namespace poststelle::fetcher {
namespace {

// Bytes of headers that are fetched of a mail above the size limit.
constexpr uint32_t kMaxHeaderBytes = 256 << 10;
constexpr int kPendingAtOnce = 4096;

}  // namespace

// One message on its way from the socket to the ledger.
struct MessageFetcher::Slot {
  explicit Slot(asio::any_io_executor executor) : parsed(std::move(executor)) {}
  PendingMessage listed;
  std::string raw;
  bool complete = false;   // every byte is here
  bool too_large = false;  // only headers
  uint64_t announced = 0;
  int64_t reserved = 0;  // bytes taken from the memory budget
  Publication publication;
  async::Event parsed;
  absl::Status parser;  // why it could not be parsed at all; it stays pending then
  std::atomic<bool> done{false};
};

// Receives the bodies of one window.
class MessageFetcher::Sink : public imap::BodySink {
 public:
  Sink(MessageFetcher& fetcher, Window& window) : fetcher_(fetcher) {
    for (const std::shared_ptr<Slot>& slot : window) by_uid_[slot->listed.uid] = slot;
  }

  absl::Status Begin(uint32_t uid, uint64_t size) override {
    auto it = by_uid_.find(uid);
    current_ = it == by_uid_.end() || it->second->complete ? nullptr : it->second.get();
    if (current_ == nullptr) return absl::OkStatus();  // not asked for, or told twice: read and dropped
    current_->raw.clear();
    current_->announced = size;
    if (size > fetcher_.context_.max_message_size) {
      current_->too_large = true;
      return absl::OkStatus();
    }
    current_->raw.reserve(size);
    return absl::OkStatus();
  }

  absl::Status Append(std::string_view bytes) override {
    if (current_ != nullptr && !current_->too_large) current_->raw.append(bytes);
    return absl::OkStatus();
  }

  absl::Status End(uint32_t uid) override {
    if (current_ == nullptr) return absl::OkStatus();
    current_ = nullptr;
    std::shared_ptr<Slot> slot = by_uid_[uid];
    fetcher_.context_.metrics.bodies_fetched.Increment();
    // Of one that is too large nothing was kept: FetchTooLarge completes it. Finish() waits for what is complete.
    slot->complete = !slot->too_large;
    if (slot->complete) fetcher_.parsing_.Spawn(fetcher_.Parse(slot));
    return absl::OkStatus();
  }

 private:
  MessageFetcher& fetcher_;
  std::unordered_map<uint32_t, std::shared_ptr<Slot>> by_uid_;
  Slot* current_ = nullptr;
};

MessageFetcher::MessageFetcher(FetchContext& context, const config::v1::Mailbox& mailbox, Hold& hold,
                               imap::Client& client, uint32_t uid_validity, const std::atomic<bool>& stop)
    : context_(context),
      mailbox_(mailbox),
      hold_(hold),
      client_(client),
      uid_validity_(uid_validity),
      stop_(stop),
      parsing_(context.executor) {}

MessageFetcher::~MessageFetcher() = default;

// A window that was downloaded, while it is parsed to its end and committed.
struct MessageFetcher::Finishing {
  Finishing(asio::any_io_executor executor, Window w, int64_t b)
      : window(std::move(w)), bytes(b), scope(std::move(executor)) {}
  Window window;
  const int64_t bytes;  // of the memory budget
  absl::Status result;
  async::TaskScope scope;
};

async::Task<void> MessageFetcher::RunFinish(std::shared_ptr<Finishing> finishing) {
  finishing->result = co_await Finish(finishing->window);
  context_.memory.Release(finishing->bytes);
}

async::Task<absl::Status> MessageFetcher::JoinFinish(std::shared_ptr<Finishing> finishing) {
  if (finishing == nullptr) co_return absl::OkStatus();
  co_await finishing->scope.Join();
  co_return finishing->result;
}

async::Task<absl::StatusOr<int>> MessageFetcher::FetchAll() {
  absl::Status status;
  // One window is committed while the next is downloaded; never two, so that they are published in their order.
  std::shared_ptr<Finishing> finishing;
  while (status.ok()) {
    // What is still being committed is pending yet.
    status = co_await JoinFinish(std::exchange(finishing, nullptr));
    if (!status.ok()) break;
    std::vector<PendingMessage> pending;
    sql::Work work = [this, &pending](sql::Transaction& tx) -> async::Task<absl::Status> {
      PS_CO_ASSIGN_OR_RETURN(pending, co_await ReadPending(tx, hold_.folder, uid_validity_, kPendingAtOnce));
      co_return absl::OkStatus();
    };
    status = co_await context_.database.Read(work);
    if (!status.ok() || pending.empty()) break;
    std::stable_partition(pending.begin(), pending.end(),
                          [this](const PendingMessage& m) { return !hold_.blamed.contains(m.uid); });
    while (!pending.empty() && status.ok()) {
      if (hold_.lost) status = absl::AbortedError("another worker took over this mailbox");
      if (stop_) status = absl::CancelledError("the poll was stopped");
      if (!status.ok()) break;
      std::vector<PendingMessage> next = TakeWindow(pending);
      Window window;
      int64_t bytes = 0;
      for (PendingMessage& message : next) {
        auto slot = std::make_shared<Slot>(context_.executor);
        slot->too_large = message.size > context_.max_message_size;
        slot->reserved = slot->too_large ? kMaxHeaderBytes : static_cast<int64_t>(message.size);
        bytes += slot->reserved;
        slot->listed = std::move(message);
        window.push_back(std::move(slot));
      }
      // What may have ended a worker is the only thing in hand, or its neighbour would be taken for guilty as well.
      const bool alone = IsSuspect(window.front()->listed);
      if (alone) status = co_await JoinFinish(std::exchange(finishing, nullptr));
      // The window before gives its memory back without our doing, so that waiting here with it in hand ends.
      if (status.ok()) status = co_await context_.memory.Acquire(bytes);
      if (!status.ok()) break;
      // Each body is parsed in a child while the next ones are still being downloaded.
      absl::Status fetched = co_await FetchWindow(window);
      absl::Status before = co_await JoinFinish(std::exchange(finishing, nullptr));
      finishing = std::make_shared<Finishing>(context_.executor, std::move(window), bytes);
      finishing->scope.Spawn(RunFinish(finishing));
      if (alone) {
        absl::Status finished = co_await JoinFinish(std::exchange(finishing, nullptr));
        if (before.ok()) before = finished;
      }
      status = fetched.ok() ? before : fetched;
    }
  }
  absl::Status last = co_await JoinFinish(std::exchange(finishing, nullptr));
  if (status.ok()) status = last;
  co_await parsing_.Join();
  if (!status.ok()) co_return status;
  co_return published_;
}

bool MessageFetcher::IsSuspect(const PendingMessage& message) const {
  return message.attempts > 0 || hold_.blamed.contains(message.uid);
}

std::vector<PendingMessage> MessageFetcher::TakeWindow(std::vector<PendingMessage>& pending) const {
  std::vector<PendingMessage> window;
  uint64_t bytes = 0;
  size_t taken = 0;
  // What was in hand when a worker died goes one by one, so that the guilty one is found.
  const bool alone = IsSuspect(pending.front());
  while (taken < pending.size() && window.size() < kWindowMessages) {
    const PendingMessage& next = pending[taken];
    if (!window.empty() && (alone || IsSuspect(next) || bytes + next.size > kWindowBytes)) break;
    bytes += next.size;
    window.push_back(next);
    ++taken;
  }
  pending.erase(pending.begin(), pending.begin() + static_cast<std::ptrdiff_t>(taken));
  return window;
}

async::Task<absl::Status> MessageFetcher::FetchWindow(Window& window) {
  std::vector<uint32_t> bodies;
  std::set<std::string> all;
  for (const std::shared_ptr<Slot>& slot : window) {
    all.insert(slot->listed.message_id);
    if (slot->listed.attempts >= kFetchAttempts) {
      PS_CO_RETURN_IF_ERROR(co_await CloseWithout(
          slot->listed.uid, "quarantined",
          absl::StrCat("Fetching it was begun ", slot->listed.attempts,
                       " times by workers that did not live to finish it. It is still on the server.")));
      slot->done = true;
    } else if (auto blamed = hold_.blamed.find(slot->listed.uid);
               blamed != hold_.blamed.end() && blamed->second >= kDownloadAttempts) {
      PS_CO_RETURN_IF_ERROR(
          co_await CloseWithout(slot->listed.uid, "quarantined",
                                absl::StrCat("The connection failed ", blamed->second,
                                             " times in the middle of this message. It is still on the server.")));
      hold_.blamed.erase(blamed);
      slot->done = true;
    } else if (!slot->too_large) {
      bodies.push_back(slot->listed.uid);
    }
  }
  // The attempt is counted before it is made (I4).
  auto count = [this, &all](sql::Transaction& tx) { return CountAttempts(tx, all, context_.committer.holder()); };
  hold_.begun.insert(all.begin(), all.end());
  PS_CO_RETURN_IF_ERROR(co_await context_.committer.Commit(hold_, count));
  Failpoint("fetch.attempt_counted");

  if (!bodies.empty()) {
    Sink sink(*this, window);
    absl::StatusOr<imap::FetchBodiesResult> result = co_await client_.FetchBodies(bodies, sink);
    if (!result.ok()) {
      if (imap::GetErrorKind(result.status()) != imap::ErrorKind::kTooLarge) {
        auto begun = std::find_if(window.begin(), window.end(),
                                  [](const auto& slot) { return slot->announced > 0 && !slot->complete; });
        // When we ended it ourselves, the message is not to blame.
        if (begun != window.end() && !stop_ && !absl::IsCancelled(result.status())) {
          ++hold_.blamed[(*begun)->listed.uid];
        }
        co_return result.status();
      }
      // The server announced more than we take: remember the size, so that the next poll takes the headers only.
      for (const std::shared_ptr<Slot>& slot : window) {
        if (slot->complete || slot->announced <= context_.max_message_size) continue;  // the one that was begun
        const uint32_t uid = slot->listed.uid;
        const uint64_t size = std::max<uint64_t>(slot->announced, context_.max_message_size + 1);
        auto correct = [this, uid, size](sql::Transaction& tx) {
          return CorrectSize(tx, hold_.folder, uid_validity_, uid, size);
        };
        PS_CO_RETURN_IF_ERROR(co_await context_.committer.Commit(hold_, correct));
        break;
      }
      co_return result.status();
    }
    if (result->passing) {
      co_return imap::MakeError(imap::ErrorKind::kServerRefused,
                                absl::StrCat("the server does not deliver messages for now: ", result->refusal, "."));
    }
    PS_CO_RETURN_IF_ERROR(co_await SettleMissing(window, result->missing, result->refusal));
  }
  for (const std::shared_ptr<Slot>& slot : window) {
    if (slot->too_large && !slot->done) PS_CO_RETURN_IF_ERROR(co_await FetchTooLarge(*slot));
  }
  Failpoint("fetch.window_downloaded");
  co_return absl::OkStatus();
}

async::Task<absl::Status> MessageFetcher::FetchTooLarge(Slot& slot) {
  absl::StatusOr<std::string> header = co_await client_.FetchHeader(slot.listed.uid, kMaxHeaderBytes);
  if (!header.ok()) {
    if (!absl::IsNotFound(header.status())) co_return header.status();
    co_return co_await CloseWithout(slot.listed.uid, "gone",
                                    "It was deleted on the server before it could be fetched.");
  }
  context_.metrics.headers_fetched.Increment();
  mail::ParsedMail parsed = mail::ScanHeaders(*header);
  slot.publication.content = MessageFrom(parsed, hold_.folder, uid_validity_, slot.listed);
  v1::Message& content = slot.publication.content;
  content.set_undecodable(false);
  content.clear_undecodable_reason();
  content.set_too_large(true);
  content.set_size(static_cast<int64_t>(slot.listed.size));
  content.set_note(absl::StrCat("This message has ", slot.listed.size, " bytes, more than the limit of ",
                                context_.max_message_size, ". It was not downloaded and stays on the mail server."));
  slot.publication.anchor = mail::AnchorFromHeaders(*header, slot.listed.size, slot.listed.internal_date);
  slot.complete = true;
  slot.done = true;
  co_return absl::OkStatus();
}

async::Task<absl::Status> MessageFetcher::SettleMissing(Window& window, std::vector<uint32_t> missing,
                                                        const std::string& refusal) {
  if (missing.empty()) co_return absl::OkStatus();
  PS_CO_ASSIGN_OR_RETURN(std::vector<uint32_t> there, co_await client_.SearchUids(missing));
  for (uint32_t uid : missing) {
    auto slot = std::find_if(window.begin(), window.end(), [uid](const auto& s) { return s->listed.uid == uid; });
    if (slot == window.end() || (*slot)->complete) continue;
    const bool is_there = std::find(there.begin(), there.end(), uid) != there.end();
    if (is_there && window.size() > 1) {
      // A refusal is for a whole command: it is asked for alone, before it is set aside for what another one has.
      hold_.blamed.try_emplace(uid, 0);
      continue;
    }
    (*slot)->done = true;
    if (!is_there) {
      PS_CO_RETURN_IF_ERROR(
          co_await CloseWithout(uid, "gone", "It was deleted on the server before it could be fetched."));
    } else {
      PS_CO_RETURN_IF_ERROR(
          co_await CloseWithout(uid, "quarantined",
                                absl::StrCat("The server lists it but does not deliver it",
                                             refusal.empty() ? std::string(".") : absl::StrCat(": ", refusal))));
    }
  }
  co_return absl::OkStatus();
}

async::Task<absl::Status> MessageFetcher::CloseWithout(uint32_t uid, std::string_view state, std::string reason) {
  auto close = [this, uid, state, reason](sql::Transaction& tx) {
    return CloseAs(tx, hold_.folder, uid_validity_, uid, state, reason);
  };
  co_return co_await context_.committer.Commit(hold_, close);
}

async::Task<void> MessageFetcher::Parse(std::shared_ptr<Slot> slot) {
  mail::ParsedMail parsed;
  if (slot->listed.attempts >= kParseAttempts) {
    parsed = mail::ScanHeaders(slot->raw);
    parsed.set_undecodable(true);
    parsed.set_undecodable_reason("Handling it ended several workers; it was published without being decoded.");
  } else {
    absl::StatusOr<mail::ParsedMail> result = co_await context_.parser.Parse(slot->raw);
    if (!result.ok()) {
      slot->parser =
          absl::IsUnavailable(result.status()) ? WithReason(result.status(), "PARSER_UNAVAILABLE") : result.status();
      slot->done = true;
      slot->parsed.Notify();
      co_return;
    }
    parsed = *std::move(result);
  }
  Publication& p = slot->publication;
  p.content = MessageFrom(parsed, hold_.folder, uid_validity_, slot->listed);
  p.content.set_size(static_cast<int64_t>(slot->raw.size()));
  p.digest = mail::Digest(slot->raw);
  // The anchor is made of what a listing tells: the listed size, not the downloaded one.
  p.anchor = mail::AnchorFromHeaders(mail::HeaderBlock(slot->raw), slot->listed.size, slot->listed.internal_date);
  p.raw = blob::Encode(slot->raw);
  slot->done = true;
  slot->parsed.Notify();
}

async::Task<absl::Status> MessageFetcher::Finish(Window& window) {
  absl::Status unparsed;
  std::vector<Unit> units;
  std::vector<std::shared_ptr<Slot>> published;
  for (const std::shared_ptr<Slot>& slot : window) {
    if (!slot->complete) continue;
    while (!slot->done) {
      // Parsing has its own deadline; what is complete is published even when the run is being stopped.
      if (absl::Status s = co_await slot->parsed.Wait(absl::Seconds(1)); absl::IsCancelled(s)) co_return s;
    }
    if (!slot->parser.ok()) {
      unparsed = slot->parser;
      continue;
    }
    slot->publication.folder = hold_.folder;
    slot->publication.uid_validity = uid_validity_;
    slot->publication.uid = slot->listed.uid;
    published.push_back(slot);
  }
  if (published.empty()) co_return unparsed;
  for (const std::shared_ptr<Slot>& slot : published) {
    Unit unit;
    unit.hold = &hold_;
    unit.publication = &slot->publication;
    units.push_back(std::move(unit));
  }
  if (DeliberatelyBroken("pending_closed_before_publication")) {
    for (const std::shared_ptr<Slot>& slot : published) {
      PS_CO_RETURN_IF_ERROR(co_await CloseWithout(slot->listed.uid, "published", ""));
    }
  }
  Failpoint("publication.before_commit");
  absl::Status committed = co_await context_.committer.Commit(units);
  Failpoint("publication.after_commit");
  if (committed.ok()) {
    published_ += static_cast<int>(published.size());
    context_.metrics.published.Increment(static_cast<double>(published.size()));
    co_return unparsed;
  }
  for (size_t i = 0; i < units.size(); ++i) {
    const absl::Status& result = units[i].result;
    if (result.ok()) {
      ++published_;
      context_.metrics.published.Increment();
      continue;
    }
    // Only what the database says about the data itself condemns a message; a full disk or a failed COMMIT passes.
    if (!absl::IsInvalidArgument(result) && !absl::IsAlreadyExists(result)) co_return result;
    // The database refuses this very message: it is set aside with its bytes, the others stand.
    const std::shared_ptr<Slot>& slot = published[i];
    const std::string reason = absl::StrCat("It could not be stored: ", std::string(result.message()));
    observe::Log(observe::Level::kError, "message.quarantined",
                 {{"mailbox", hold_.folder.mailbox.id}, {"uid", slot->listed.uid}, {"reason", reason}});
    auto set_aside = [this, slot, reason](sql::Transaction& tx) {
      const blob::EncodedBlob* raw = slot->publication.raw ? &*slot->publication.raw : nullptr;
      return CloseAs(tx, hold_.folder, uid_validity_, slot->listed.uid, "quarantined", reason, raw);
    };
    PS_CO_RETURN_IF_ERROR(co_await context_.committer.Commit(hold_, set_aside));
  }
  co_return unparsed;
}

}  // namespace poststelle::fetcher
