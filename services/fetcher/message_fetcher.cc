#include "services/fetcher/message_fetcher.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "libs/base/failpoint.h"
#include "libs/base/reason.h"
#include "libs/base/status_macros.h"
#include "libs/mail/digest.h"
#include "libs/mail/scan.h"
#include "libs/observe/log.h"
#include "services/fetcher/after_import.h"
#include "services/fetcher/event_effects.h"
#include "services/fetcher/failure_policy.h"
#include "services/fetcher/message_content.h"
#include "services/fetcher/publish.h"

namespace poststelle::fetcher {
namespace {

// Bytes of headers that are fetched of a mail above the size limit.
constexpr uint32_t kMaxHeaderBytes = 256 << 10;
constexpr int kPendingAtOnce = 4096;

// Bytes that are taken from the memory budget for a message listed with `size`.
int64_t Reservation(uint64_t size) { return static_cast<int64_t>(size + size / 8 + MessageFetcher::kSizeSlack); }

}  // namespace

// One message on its way from the socket to the ledger.
struct MessageFetcher::Slot {
  explicit Slot(asio::any_io_executor executor) : parsed(std::move(executor)) {}
  PendingMessage listed;
  uint64_t listed_size = 0;  // as the listing told it; listed.size may have been corrected
  std::string raw;
  bool begun = false;      // its body is coming in
  bool complete = false;   // every byte is here
  bool empty = false;      // it came without a byte, although it was listed with some
  bool outgrown = false;   // it is larger than what is reserved for it: nothing was kept
  bool too_large = false;  // only headers
  uint64_t announced = 0;
  int64_t reserved = 0;  // bytes taken from the memory budget
  bool stored = false;   // published; what is remembered of its failures is void
  Publication publication;
  async::Event parsed;
  absl::Status parser;  // why it could not be parsed at all; it stays pending then
  std::atomic<bool> done{false};
};

// Receives the bodies of one window.
class MessageFetcher::Sink : public imap::BodySink {
 public:
  Sink(MessageFetcher& fetcher, Window& asked) : fetcher_(fetcher) {
    for (const std::shared_ptr<Slot>& slot : asked) by_uid_[slot->listed.uid] = slot;
  }

  absl::Status Begin(uint32_t uid, uint64_t size) override {
    if (current_ != nullptr) current_->begun = false;
    auto it = by_uid_.find(uid);
    current_ = it == by_uid_.end() || it->second->complete ? nullptr : it->second.get();
    if (current_ == nullptr) return absl::OkStatus();  // not asked for, or told twice: read and dropped
    current_->raw.clear();
    current_->announced = size;
    current_->begun = true;
    current_->outgrown = size > static_cast<uint64_t>(current_->reserved) || size > fetcher_.context_.max_message_size;
    if (!current_->outgrown) current_->raw.reserve(size);
    return absl::OkStatus();
  }

  absl::Status Append(std::string_view bytes) override {
    if (current_ != nullptr && !current_->outgrown) current_->raw.append(bytes);
    return absl::OkStatus();
  }

  absl::Status End(uint32_t uid) override {
    if (current_ == nullptr) return absl::OkStatus();
    current_ = nullptr;
    std::shared_ptr<Slot> slot = by_uid_[uid];
    slot->begun = false;
    fetcher_.context_.metrics.bodies_fetched.Increment();
    slot->empty = slot->announced == 0 && slot->listed_size > 0;
    // Finish() waits for what is complete.
    slot->complete = !slot->outgrown && !slot->empty;
    if (!slot->complete) return absl::OkStatus();
    if (together_bytes_ + slot->raw.size() > parsing::ParserPool::kTogetherBytes) ParseTogether();
    together_bytes_ += slot->raw.size();
    together_.push_back(std::move(slot));
    return absl::OkStatus();
  }

  // What is here and not yet handed to the parsers; to be called once no more comes.
  void ParseTogether() {
    if (!together_.empty()) fetcher_.parsing_->Spawn(fetcher_.Parse(std::exchange(together_, {})));
    together_bytes_ = 0;
  }

 private:
  MessageFetcher& fetcher_;
  std::unordered_map<uint32_t, std::shared_ptr<Slot>> by_uid_;
  Slot* current_ = nullptr;
  Window together_;
  size_t together_bytes_ = 0;
};

MessageFetcher::MessageFetcher(FetchContext& context, const config::v1::Mailbox& mailbox, Hold& hold,
                               imap::Client& client, uint32_t uid_validity, const std::atomic<bool>& stop)
    : context_(context), mailbox_(mailbox), hold_(hold), client_(client), uid_validity_(uid_validity), stop_(stop) {}

MessageFetcher::~MessageFetcher() = default;

// A window that was downloaded, while it is parsed to its end and committed.
struct MessageFetcher::Finishing {
  Finishing(asio::any_io_executor executor, Window w, int64_t b)
      : window(std::move(w)), bytes(b), scope(std::move(executor)) {}
  Window window;
  const int64_t bytes;          // of the memory budget
  std::set<std::string> ahead;  // whose attempts are counted in the same commit
  bool counted = false;         // they are
  absl::Status result;
  async::TaskScope scope;
};

async::Task<void> MessageFetcher::RunFinish(std::shared_ptr<Finishing> finishing) {
  finishing->result = co_await Finish(*finishing);
  context_.memory.Release(finishing->bytes);
}

async::Task<absl::Status> MessageFetcher::JoinFinish(std::shared_ptr<Finishing> finishing) {
  if (finishing == nullptr) co_return absl::OkStatus();
  co_await finishing->scope.Join();
  // Not by the finishing task: what the hold remembers belongs to the run, which downloads meanwhile.
  if (finishing->counted) counted_.merge(finishing->ahead);
  for (const std::shared_ptr<Slot>& slot : finishing->window) {
    if (!slot->stored) continue;
    Forget(slot->listed.uid);
    hold_.begun.erase(slot->listed.message_id);
    if (!slot->publication.after_import.empty()) hold_.next_action = absl::InfinitePast();
  }
  co_return finishing->result;
}

async::Task<absl::Status> MessageFetcher::FetchAll(bool new_only) {
  parsing_.emplace(context_.executor);
  absl::Status status;
  // One window is committed while the next is downloaded; never two, so that they are published in their order.
  std::shared_ptr<Finishing> finishing;
  int64_t abandoned = 0;
  while (status.ok()) {
    // What is still being committed is pending yet.
    status = co_await JoinFinish(std::exchange(finishing, nullptr));
    if (!status.ok()) break;
    std::vector<PendingMessage> pending;
    sql::Work work = [this, &pending, new_only](sql::Transaction& tx) -> async::Task<absl::Status> {
      PS_CO_ASSIGN_OR_RETURN(pending, co_await ReadPending(tx, hold_.folder, uid_validity_, new_only, kPendingAtOnce,
                                                           context_.committer.holder()));
      co_return absl::OkStatus();
    };
    status = co_await context_.database.Read(work);
    if (!new_only) hold_.nothing_pending = status.ok() && pending.empty();
    std::erase_if(pending, [this](const PendingMessage& m) { return set_aside_.contains(m.uid); });
    if (!status.ok() || pending.empty()) break;
    // Who failed least goes first: where the server fails with everything, they take turns.
    auto failures = [this](const PendingMessage& m) {
      auto blamed = hold_.blamed.find(m.uid);
      return blamed == hold_.blamed.end() ? -1 : blamed->second;
    };
    std::stable_sort(pending.begin(), pending.end(), [&failures](const PendingMessage& a, const PendingMessage& b) {
      return failures(a) < failures(b);
    });
    for (PendingMessage& message : pending) {
      auto resized = hold_.resized.find(message.uid);
      if (resized != hold_.resized.end()) message.size = std::max(message.size, resized->second.announced);
    }
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
        slot->reserved = slot->too_large ? kMaxHeaderBytes : Reservation(message.size);
        bytes += slot->reserved;
        auto resized = hold_.resized.find(message.uid);
        slot->listed_size = resized == hold_.resized.end() ? message.size : resized->second.listed;
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
      if (!before.ok()) {
        // What comes later is not published before what could not be.
        abandoned = bytes;
        status = before;
        break;
      }
      finishing = std::make_shared<Finishing>(context_.executor, std::move(window), bytes);
      if (fetched.ok() && !alone) finishing->ahead = SecondWindow(pending);
      hold_.begun.insert(finishing->ahead.begin(), finishing->ahead.end());
      finishing->scope.Spawn(RunFinish(finishing));
      if (alone) {
        before = co_await JoinFinish(std::exchange(finishing, nullptr));
      }
      status = fetched.ok() ? before : fetched;
    }
  }
  absl::Status last = co_await JoinFinish(std::exchange(finishing, nullptr));
  if (status.ok()) status = last;
  co_await parsing_->Join();
  if (abandoned > 0) context_.memory.Release(abandoned);
  if (status.ok()) status = refused_;
  co_return status;
}

bool MessageFetcher::IsSuspect(const PendingMessage& message) const {
  return message.attempts > 0 || hold_.blamed.contains(message.uid);
}

size_t MessageFetcher::WindowEnd(const std::vector<PendingMessage>& pending, size_t begin) const {
  uint64_t bytes = 0;
  size_t end = begin;
  // What was in hand when a worker died goes one by one, so that the guilty one is found.
  const bool alone = end < pending.size() && IsSuspect(pending[end]);
  while (end < pending.size() && end - begin < kWindowMessages) {
    const PendingMessage& next = pending[end];
    if (end > begin && (alone || IsSuspect(next) || bytes + next.size > kWindowBytes)) break;
    bytes += next.size;
    ++end;
  }
  return end;
}

std::vector<PendingMessage> MessageFetcher::TakeWindow(std::vector<PendingMessage>& pending) const {
  const auto end = pending.begin() + static_cast<std::ptrdiff_t>(WindowEnd(pending, 0));
  std::vector<PendingMessage> window(std::make_move_iterator(pending.begin()), std::make_move_iterator(end));
  pending.erase(pending.begin(), end);
  return window;
}

std::set<std::string> MessageFetcher::SecondWindow(const std::vector<PendingMessage>& pending) const {
  std::set<std::string> out;
  const size_t begin = WindowEnd(pending, 0);
  const size_t end = WindowEnd(pending, begin);
  for (size_t i = begin; i < end && !IsSuspect(pending[i]); ++i) {
    if (!pending[i].counted) out.insert(pending[i].message_id);
  }
  return out;
}

async::Task<absl::Status> MessageFetcher::FetchWindow(Window& window) {
  Window bodies;
  std::set<std::string> uncounted;
  for (const std::shared_ptr<Slot>& slot : window) {
    hold_.begun.insert(slot->listed.message_id);
    const bool counted = counted_.erase(slot->listed.message_id) > 0 || slot->listed.counted;
    if (!counted) uncounted.insert(slot->listed.message_id);
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
                                             " times while it was being fetched. It is still on the server.")));
      slot->done = true;
    } else if (!slot->too_large) {
      bodies.push_back(slot);
    }
  }
  // The attempt is counted before it is made (I4); the listing or the commit of a window before may have done so.
  if (!uncounted.empty()) {
    auto count = [this, &uncounted](sql::Transaction& tx) {
      return CountAttempts(tx, uncounted, context_.committer.holder());
    };
    PS_CO_RETURN_IF_ERROR(co_await context_.committer.Commit(hold_, count));
  }
  Failpoint("fetch.attempt_counted");

  if (!bodies.empty()) PS_CO_RETURN_IF_ERROR(co_await FetchBodies(bodies));
  for (const std::shared_ptr<Slot>& slot : window) {
    if (slot->too_large && !slot->done) PS_CO_RETURN_IF_ERROR(co_await FetchTooLarge(slot));
  }
  Failpoint("fetch.window_downloaded");
  co_return absl::OkStatus();
}

async::Task<absl::Status> MessageFetcher::FetchBodies(Window& asked) {
  std::vector<uint32_t> uids;
  for (const std::shared_ptr<Slot>& slot : asked) uids.push_back(slot->listed.uid);
  Sink sink(*this, asked);
  absl::StatusOr<imap::FetchBodiesResult> result = co_await client_.FetchBodies(uids, sink);
  sink.ParseTogether();
  if (!result.ok()) {
    const bool too_large = imap::GetErrorKind(result.status()) == imap::ErrorKind::kTooLarge;
    for (const std::shared_ptr<Slot>& slot : asked) {
      if (!too_large || !slot->begun) continue;
      // The server announced more than we take, even to throw it away. The size is remembered for good, so that whoever
      // polls next takes the headers only.
      const uint32_t uid = slot->listed.uid;
      const uint64_t size = std::min<uint64_t>(slot->announced, std::numeric_limits<int64_t>::max());
      hold_.resized[uid].listed = slot->listed_size;
      hold_.resized[uid].announced = size;
      auto correct = [this, uid, size](sql::Transaction& tx) {
        return CorrectSize(tx, hold_.folder, uid_validity_, uid, size);
      };
      PS_CO_RETURN_IF_ERROR(co_await context_.committer.Commit(hold_, correct));
      co_return result.status();
    }
    Blame(asked, result.status());
    co_return result.status();
  }
  PS_CO_RETURN_IF_ERROR(co_await SettleOutgrown(asked));
  Window missing;
  for (const std::shared_ptr<Slot>& slot : asked) {
    if (!slot->complete && !slot->outgrown) missing.push_back(slot);
  }
  if (missing.empty()) co_return absl::OkStatus();
  if (result->passing) {
    absl::Status refusal =
        imap::MakeError(imap::ErrorKind::kServerRefused,
                        absl::StrCat("the server does not deliver messages for now: ", result->refusal, "."));
    co_return SettlePassing(missing, asked.size(), std::move(refusal));
  }
  co_return co_await SettleMissing(std::move(missing), asked.size(), result->refusal);
}

void MessageFetcher::Blame(const Window& asked, const absl::Status& failure) {
  // Neither when we ended it ourselves nor when the server says that it is about itself.
  if (stop_ || absl::IsCancelled(failure) || imap::IsPassing(failure)) return;
  auto begun = std::find_if(asked.begin(), asked.end(), [](const auto& slot) { return slot->begun; });
  if (begun != asked.end()) {
    ++hold_.blamed[(*begun)->listed.uid];
    return;
  }
  std::vector<uint32_t> suspects;
  for (const std::shared_ptr<Slot>& slot : asked) {
    if (!slot->complete && !slot->outgrown) suspects.push_back(slot->listed.uid);
  }
  for (uint32_t uid : suspects) hold_.blamed.try_emplace(uid, 0);
  if (suspects.size() == 1) ++hold_.blamed[suspects.front()];
}

async::Task<absl::Status> MessageFetcher::SettleOutgrown(Window& asked) {
  for (const std::shared_ptr<Slot>& slot : asked) {
    if (!slot->outgrown) continue;
    // The ledger keeps the listed size: anchors are made of it, and a relisting looks for it.
    Hold::Resized& resized = hold_.resized[slot->listed.uid];
    resized.listed = slot->listed_size;
    resized.announced = slot->announced;
    if (++resized.times <= kSizeCorrections) continue;
    slot->done = true;
    PS_CO_RETURN_IF_ERROR(co_await CloseWithout(
        slot->listed.uid, "quarantined",
        absl::StrCat("The server lists it with ", slot->listed_size, " bytes and sends more at each of ", resized.times,
                     " times, ", slot->announced, " at last. It is still on the server.")));
  }
  co_return absl::OkStatus();
}

absl::Status MessageFetcher::SettlePassing(const Window& missing, size_t asked, absl::Status refusal) {
  for (const std::shared_ptr<Slot>& slot : missing) hold_.blamed.try_emplace(slot->listed.uid, 0);
  // Of several nobody knows which one it is about: next time they go last, and alone.
  if (asked > 1 || ++passing_refusals_ >= kPassingRefusals) return refusal;
  set_aside_.insert(missing.front()->listed.uid);
  refused_ = std::move(refusal);
  return absl::OkStatus();
}

async::Task<absl::Status> MessageFetcher::FetchTooLarge(const std::shared_ptr<Slot>& slot) {
  absl::StatusOr<std::string> header = co_await client_.FetchHeader(slot->listed.uid, kMaxHeaderBytes);
  if (!header.ok()) {
    Window alone{slot};
    const bool refused = imap::GetErrorKind(header.status()) == imap::ErrorKind::kServerRefused;
    if (refused && imap::IsPassing(header.status())) co_return SettlePassing(alone, 1, header.status());
    if (refused || absl::IsNotFound(header.status())) {
      co_return co_await SettleMissing(std::move(alone), 1, std::string(header.status().message()));
    }
    Blame(alone, header.status());
    co_return header.status();
  }
  context_.metrics.headers_fetched.Increment();
  mail::ParsedMail parsed = mail::ScanHeaders(*header);
  slot->publication.content = MessageFrom(parsed, hold_.folder, uid_validity_, slot->listed);
  v1::Message& content = slot->publication.content;
  content.set_undecodable(false);
  content.clear_undecodable_reason();
  content.set_too_large(true);
  content.set_size(static_cast<int64_t>(slot->listed.size));
  content.set_note(absl::StrCat("This message has ", slot->listed.size, " bytes, more than the limit of ",
                                context_.max_message_size, ". It was not downloaded and stays on the mail server."));
  slot->publication.anchor = mail::AnchorFromHeaders(*header, slot->listed_size, slot->listed.internal_date);
  slot->complete = true;
  slot->done = true;
  co_return absl::OkStatus();
}

async::Task<absl::Status> MessageFetcher::SettleMissing(Window missing, size_t asked, const std::string& refusal) {
  std::vector<uint32_t> uids;
  for (const std::shared_ptr<Slot>& slot : missing) uids.push_back(slot->listed.uid);
  PS_CO_ASSIGN_OR_RETURN(std::vector<uint32_t> there, co_await client_.SearchUids(std::move(uids)));
  for (const std::shared_ptr<Slot>& slot : missing) {
    const uint32_t uid = slot->listed.uid;
    if (std::find(there.begin(), there.end(), uid) == there.end()) {
      slot->done = true;
      PS_CO_RETURN_IF_ERROR(
          co_await CloseWithout(uid, "gone", "It was deleted on the server before it could be fetched."));
      continue;
    }
    // A refusal is for a whole command: it is asked for alone, before it is set aside for what another one has.
    int& failures = hold_.blamed.try_emplace(uid, 0).first->second;
    if (asked > 1) continue;
    // Once a poll: what is wrong with a server right now must not condemn its mail.
    set_aside_.insert(uid);
    if (++failures < kDownloadAttempts) continue;
    slot->done = true;
    const std::string why =
        slot->empty       ? absl::StrCat("The server lists it with ", slot->listed_size, " bytes but delivers none.")
        : refusal.empty() ? "The server lists it but does not deliver it."
                          : absl::StrCat("The server lists it but does not deliver it: ", refusal);
    PS_CO_RETURN_IF_ERROR(co_await CloseWithout(uid, "quarantined", why));
  }
  co_return absl::OkStatus();
}

async::Task<absl::Status> MessageFetcher::CloseWithout(uint32_t uid, std::string_view state, std::string reason) {
  auto close = [this, uid, state, reason](sql::Transaction& tx) {
    return CloseAs(tx, hold_.folder, uid_validity_, uid, state, reason);
  };
  PS_CO_RETURN_IF_ERROR(co_await context_.committer.Commit(hold_, close));
  Forget(uid);
  co_return absl::OkStatus();
}

void MessageFetcher::Forget(uint32_t uid) {
  hold_.blamed.erase(uid);
  hold_.resized.erase(uid);
}

async::Task<void> MessageFetcher::Parse(Window together) {
  std::vector<const std::string*> raws;
  for (const std::shared_ptr<Slot>& slot : together) {
    if (slot->listed.attempts < kParseAttempts) raws.push_back(&slot->raw);
  }
  absl::StatusOr<std::vector<mail::ParsedMail>> results = co_await context_.parser.ParseAll(std::move(raws));
  size_t at = 0;
  for (const std::shared_ptr<Slot>& slot : together) {
    if (slot->listed.attempts >= kParseAttempts) {
      mail::ParsedMail parsed = mail::ScanHeaders(slot->raw);
      parsed.set_undecodable(true);
      parsed.set_undecodable_reason("Handling it ended several workers; it was published without being decoded.");
      Complete(*slot, parsed);
    } else if (results.ok()) {
      Complete(*slot, (*results)[at++]);
    } else {
      slot->parser =
          absl::IsUnavailable(results.status()) ? WithReason(results.status(), "PARSER_UNAVAILABLE") : results.status();
    }
    slot->done = true;
    slot->parsed.Notify();
  }
}

void MessageFetcher::Complete(Slot& slot, const mail::ParsedMail& parsed) {
  Publication& p = slot.publication;
  p.content = MessageFrom(parsed, hold_.folder, uid_validity_, slot.listed);
  p.content.set_size(static_cast<int64_t>(slot.raw.size()));
  p.digest = mail::Digest(slot.raw);
  // The anchor is made of what a listing tells: the listed size, not the downloaded one.
  p.anchor = mail::AnchorFromHeaders(mail::HeaderBlock(slot.raw), slot.listed_size, slot.listed.internal_date);
  p.raw = blob::Encode(slot.raw);
  slot.raw = {};
}

async::Task<absl::Status> MessageFetcher::Finish(Finishing& finishing) {
  const Window& window = finishing.window;
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
    slot->publication.effects = EffectsOf(mailbox_.import_options(), slot->publication.content);
    // Only with the raw bytes here: what is too large stays on the server.
    if (slot->publication.raw) slot->publication.after_import = ActionOf(mailbox_);
    published.push_back(slot);
  }
  if (published.empty()) co_return unparsed;
  for (const std::shared_ptr<Slot>& slot : published) {
    Unit unit;
    unit.hold = &hold_;
    unit.publication = &slot->publication;
    units.push_back(std::move(unit));
  }
  if (!finishing.ahead.empty()) {
    Unit unit;
    unit.hold = &hold_;
    unit.apply = [this, &finishing](sql::Transaction& tx) {
      return CountAttempts(tx, finishing.ahead, context_.committer.holder());
    };
    units.push_back(std::move(unit));
  }
  if (DeliberatelyBroken("pending_closed_before_publication")) {
    for (const std::shared_ptr<Slot>& slot : published) {
      PS_CO_RETURN_IF_ERROR(co_await CloseWithout(slot->listed.uid, "published", ""));
    }
  }
  std::vector<blob::EncodedBlob*> raw;
  for (const std::shared_ptr<Slot>& slot : published) {
    if (slot->publication.raw) raw.push_back(&*slot->publication.raw);
  }
  PS_CO_RETURN_IF_ERROR(co_await context_.raw.Save(std::move(raw)));
  Failpoint("publication.before_commit");
  // SPEC §5.11: from here on nothing comes of it any more. What is being committed right now still counts as before.
  if (*hold_.deleted) co_return absl::CancelledError("the mailbox was deleted");
  absl::Status committed = co_await context_.committer.Commit(units);
  Failpoint("publication.after_commit");
  finishing.counted = units.size() > published.size() && units.back().result.ok();
  for (size_t i = 0; i < published.size(); ++i) published[i]->stored = units[i].result.ok();
  if (committed.ok()) {
    published_ += static_cast<int>(published.size());
    context_.metrics.published.Increment(static_cast<double>(published.size()));
    co_return unparsed;
  }
  for (size_t i = 0; i < published.size(); ++i) {
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
