#include "services/fetcher/folder_listing.h"

#include <algorithm>
#include <cstdlib>
#include <set>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "libs/base/failpoint.h"
#include "libs/base/status_macros.h"
#include "libs/mail/digest.h"
#include "libs/observe/log.h"
#include "services/fetcher/list_window.h"
#include "services/fetcher/message_fetcher.h"

namespace poststelle::fetcher {
namespace {

// Decisions a commit: keeps a transaction short, and a first poll of a huge folder in bounded memory.
constexpr size_t kDecisionsPerCommit = 1000;

}  // namespace

absl::Status FolderListing::CheckStop() const {
  if (hold_.lost) return absl::AbortedError("another worker took over this mailbox");
  if (stop_) return absl::CancelledError("the poll was stopped");
  return absl::OkStatus();
}

async::Task<absl::Status> FolderListing::Run() {
  PS_CO_RETURN_IF_ERROR(co_await Begin());
  absl::Status status = co_await List();
  if (status.ok()) status = co_await RecheckReadMail();
  // What was decided stands whatever came of the rest.
  PS_CO_RETURN_IF_ERROR(co_await CommitDecided());
  if (finished_ && known_) {
    context_.board.ListingCompleted(folder_, cursor_.reference_ms);
    hold_.cursor->reference_ms = cursor_.reference_ms;
  }
  if (!status.ok()) co_return status;
  co_return co_await ApplyChangedOptions();
}

// The session may stand in another folder of the mailbox.
async::Task<absl::Status> FolderListing::Open() {
  PS_CO_ASSIGN_OR_RETURN(const imap::FolderState now, co_await mailbox_.Enter(folder_.folder, state_));
  if (now.uid_validity != state_.uid_validity) {
    co_return absl::AbortedError("the server rebuilt the folder while it was polled; it is listed anew");
  }
  state_ = now;
  co_return absl::OkStatus();
}

bool FolderListing::Complete() const {
  return cursor_.uid_validity == state_.uid_validity && !rules_.first_listing && cursor_.reference_ms > 0;
}

async::Task<absl::Status> FolderListing::Begin() {
  const uint32_t validity = state_.uid_validity;
  cursor_ = hold_.cursor.value_or(Cursor{});
  rules_ = RulesFor(config_, cursor_, started_);
  if (cursor_.uid_validity != 0 && cursor_.uid_validity != validity) {
    notice_ = absl::StrCat("The server rebuilt the folder ", folder_.folder, " (UIDVALIDITY ", cursor_.uid_validity,
                           " became ", validity, "); mail was recognised by its headers.");
    observe::Log(observe::Level::kWarning, "folder.uid_validity_changed",
                 {{"mailbox", folder_.mailbox.id},
                  {"folder", folder_.folder},
                  {"from", cursor_.uid_validity},
                  {"to", validity}});
    cursor_.watermark = 0;
    hold_.blamed.clear();  // these UIDs name other messages now
    hold_.resized.clear();
    cursor_.highest_modseq = 0;
    // Committed with the first part of the relisting: whoever goes on after an interruption still recognises mail.
    cursor_.reference_ms = -std::abs(cursor_.reference_ms);
  }
  if (Complete()) co_return absl::OkStatus();
  sql::Work work = [this, validity](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_ASSIGN_OR_RETURN(recognise_, co_await HasOlderIdentities(tx, folder_, validity));
    PS_CO_ASSIGN_OR_RETURN(stale_pending_, co_await ReadStalePending(tx, folder_, validity));
    co_return absl::OkStatus();
  };
  co_return co_await context_.database.Read(work);
}

async::Task<absl::Status> FolderListing::List() {
  const imap::FolderState& state = state_;
  known_ = Complete();
  const bool nothing_new = state.exists == 0 || (state.uid_next != 0 && state.uid_next <= cursor_.watermark + 1);
  if (!nothing_new) {
    // Windows bound the memory of a first poll.
    PS_CO_RETURN_IF_ERROR(co_await Open());
    ListingWindows windows(cursor_.watermark, state.uid_next, state.exists);
    while (std::optional<imap::UidRange> range = windows.Next()) {
      PS_CO_RETURN_IF_ERROR(co_await CommitDecided());  // of the window before; the last one is not alone in its commit
      PS_CO_RETURN_IF_ERROR(CheckStop());
      PS_CO_RETURN_IF_ERROR(co_await ListWindow(*range, windows));
    }
  }
  PS_CO_RETURN_IF_ERROR(CheckStop());
  finished_ = true;
  cursor_.reference_ms = absl::ToUnixMillis(started_);
  if (known_) co_return absl::OkStatus();
  // From now on the age limit counts from this listing.
  cursor_.uid_validity = state.uid_validity;
  cursor_.enable_generation = config_.enable_generation();
  Record(rules_, cursor_);
  if (!decided_) decided_ = std::make_unique<Decided>();
  decided_->complete = true;
  co_return absl::OkStatus();
}

async::Task<absl::Status> FolderListing::ListWindow(imap::UidRange range, ListingWindows& windows) {
  AnchorOf anchor_of;
  if (recognise_) {
    anchor_of = [](const imap::MessageInfo& info) {
      return mail::AnchorFromHeaders(info.header_fields, info.size, info.internal_date_unix);
    };
  }
  PS_CO_ASSIGN_OR_RETURN(std::vector<ListedMessage> items,
                         co_await fetcher::ListWindow(*mailbox_.client, range, anchor_of, windows));
  Failpoint("listing.before_commit");

  for (size_t begin = 0; begin < items.size(); begin += kDecisionsPerCommit) {
    PS_CO_RETURN_IF_ERROR(co_await CommitDecided());
    PS_CO_RETURN_IF_ERROR(CheckStop());
    const size_t end = std::min(items.size(), begin + kDecisionsPerCommit);
    std::vector<Decision> decisions;
    decisions.reserve(end - begin);
    for (size_t i = begin; i < end; ++i) {
      PS_CO_ASSIGN_OR_RETURN(Decision decision, co_await DecideOne(items[i]));
      decisions.push_back(std::move(decision));
    }
    cursor_.uid_validity = state_.uid_validity;
    cursor_.watermark = items[end - 1].mail.uid;
    decided_ = std::make_unique<Decided>();
    decided_->decisions = std::move(decisions);
  }
  co_return absl::OkStatus();
}

async::Task<absl::StatusOr<Decision>> FolderListing::DecideOne(const ListedMessage& message) {
  const Listed& mail = message.mail;
  const std::string& anchor = message.anchor;
  Decision decision = Decide(rules_, mail);
  if (!recognise_ || mail.deleted) co_return decision;
  std::optional<AnchorMatch> match;
  sql::Work work = [this, &anchor, &match](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_ASSIGN_OR_RETURN(match, co_await MatchAnchor(tx, folder_, state_.uid_validity, anchor, used_matches_));
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await context_.database.Read(work));
  if (match) {
    used_matches_.push_back(match->message_id);
    decision.kind = Decision::Kind::kRecognised;
    decision.reason = "It is known from before the folder was rebuilt or the connection changed.";
    decision.recognised_as = match->message_id;
    context_.metrics.recognised.Increment();
    co_return decision;
  }
  // What a committed listing held as pending is imported whatever age and read mark say now.
  auto stale = std::find_if(stale_pending_.begin(), stale_pending_.end(), [&mail](const OpenRow& row) {
    return row.size == mail.size && row.internal_date == mail.internal_date;
  });
  if (stale != stale_pending_.end()) {
    decision.kind = Decision::Kind::kPending;
    decision.reason.clear();
    decision.historical = stale->historical;
    stale_pending_.erase(stale);
  }
  co_return decision;
}

async::Task<absl::Status> FolderListing::CommitDecided() {
  if (!decided_) co_return absl::OkStatus();
  const std::unique_ptr<Decided> decided = std::move(decided_);
  if (!decided->decisions.empty() && DeliberatelyBroken("watermark_without_pending")) {
    auto only_cursor = [this](sql::Transaction& tx) { return WriteCursor(tx, folder_, cursor_); };
    PS_CO_RETURN_IF_ERROR(co_await context_.committer.Commit(hold_, only_cursor));
    Failpoint("listing.in_transaction");
  }
  // What is fetched next is counted as attempted here, so that this takes no commit of its own: where it is certain
  // what that is, and of one folder a poll, since whatever is counted goes one by one after this process has died.
  std::set<std::string> attempted;
  const bool fetched_next = rules_.first_listing || (hold_.nothing_pending && listed_ == 0);
  if (finished_ && fetched_next && hold_.begun.empty()) {
    MarkFirstAttempts(decided->decisions, MessageFetcher::kWindowMessages, MessageFetcher::kWindowBytes);
    for (const Decision& decision : decided->decisions) {
      if (decision.attempted) attempted.insert(MessageIdOf(folder_, cursor_.uid_validity, decision.uid));
    }
  }
  auto apply = [this, &decided](sql::Transaction& tx) -> async::Task<absl::Status> {
    const uint32_t validity = cursor_.uid_validity;
    if (!decided->decisions.empty()) {
      PS_CO_RETURN_IF_ERROR(
          co_await InsertDecisions(tx, folder_, validity, decided->decisions, context_.committer.holder()));
      Failpoint("listing.in_transaction");
    }
    if (decided->complete) PS_CO_RETURN_IF_ERROR(co_await CloseStalePending(tx, folder_, validity));
    PS_CO_RETURN_IF_ERROR(co_await SettleAsRead(tx, folder_, validity, decided->unread, decided->too_old));
    co_return co_await WriteCursor(tx, folder_, cursor_);
  };
  hold_.begun.insert(attempted.begin(), attempted.end());
  absl::Status committed = co_await context_.committer.Commit(hold_, apply);
  if (!committed.ok()) {
    // Only where the outcome is unknown there may be something to take back.
    if (!absl::IsUnavailable(committed)) {
      for (const std::string& id : attempted) hold_.begun.erase(id);
    }
    co_return committed;
  }
  if (!decided->decisions.empty()) Failpoint("listing.after_commit");
  if (!decided->decisions.empty() || !decided->unread.empty()) hold_.nothing_pending = false;
  hold_.cursor = cursor_;
  used_matches_.clear();
  listed_ += static_cast<int>(decided->decisions.size());
  co_return absl::OkStatus();
}

async::Task<absl::Status> FolderListing::RecheckReadMail() {
  if (rules_.also_read) co_return absl::OkStatus();
  const uint64_t modseq = state_.highest_modseq;
  // HIGHESTMODSEQ that stands still says that no flag changed (RFC 7162 §3.1.2.1).
  if (modseq != 0 && modseq == cursor_.highest_modseq) co_return absl::OkStatus();
  auto read = [](const Decision& decision) { return decision.kind == Decision::Kind::kAsRead; };
  if (decided_ && std::any_of(decided_->decisions.begin(), decided_->decisions.end(), read)) {
    PS_CO_RETURN_IF_ERROR(co_await CommitDecided());
  }
  std::vector<OpenRow> rows;
  sql::Work work = [this, &rows](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_ASSIGN_OR_RETURN(rows, co_await ReadAsRead(tx, folder_, state_.uid_validity));
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await context_.database.Read(work));
  std::vector<uint32_t> ask;
  std::vector<uint32_t> too_old;
  ListingRules now = rules_;
  now.reference = started_;  // "while younger than the limit": counted from now (SPEC §5.3)
  for (const OpenRow& row : rows) (TooOld(now, row.internal_date) ? too_old : ask).push_back(row.uid);
  std::vector<uint32_t> unread;
  if (!ask.empty()) {
    PS_CO_RETURN_IF_ERROR(co_await Open());
    PS_CO_ASSIGN_OR_RETURN(unread, co_await mailbox_.client->SearchUnseen(ask));
    std::unordered_set<uint32_t> asked(ask.begin(), ask.end());
    std::erase_if(unread, [&asked](uint32_t uid) { return !asked.contains(uid); });
  }
  if (unread.empty() && too_old.empty() && modseq == cursor_.highest_modseq) co_return absl::OkStatus();
  if (!decided_) decided_ = std::make_unique<Decided>();
  decided_->unread = std::move(unread);
  decided_->too_old = std::move(too_old);
  cursor_.highest_modseq = modseq;
  co_return absl::OkStatus();
}

// Narrower options change nothing that is decided, wider ones do, once (SPEC §5.3): the cursor tells by which options
// the folder's messages were passed over.
async::Task<absl::Status> FolderListing::ApplyChangedOptions() {
  Cursor next = cursor_;
  Record(rules_, next);
  if (next == cursor_) co_return absl::OkStatus();
  if (Wider(rules_, cursor_)) PS_CO_RETURN_IF_ERROR(co_await Reevaluate());
  auto apply = [this, &next](sql::Transaction& tx) { return WriteCursor(tx, folder_, next); };
  PS_CO_RETURN_IF_ERROR(co_await context_.committer.Commit(hold_, apply));
  cursor_ = next;
  hold_.cursor = next;
  co_return absl::OkStatus();
}

// An interruption leaves the cursor as it is, so that the rest is looked at by the next poll.
async::Task<absl::Status> FolderListing::Reevaluate() {
  std::vector<PassedOver> rows;
  const int64_t oldest = rules_.unlimited_age ? std::numeric_limits<int64_t>::min()
                                              : absl::ToUnixSeconds(rules_.reference - rules_.max_age);
  sql::Work work = [this, &rows, oldest](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_ASSIGN_OR_RETURN(rows, co_await ReadPassedOver(tx, folder_, state_.uid_validity, oldest));
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await context_.database.Read(work));
  std::vector<uint32_t> ask;
  std::vector<uint32_t> too_old;
  for (const PassedOver& row : rows) {
    if (row.as_read && !rules_.also_read) continue;  // goes on waiting to become unread
    (TooOld(rules_, row.internal_date) ? too_old : ask).push_back(row.uid);
  }
  // What is not on the server any more stays what it is.
  std::vector<uint32_t> wanted;
  std::vector<uint32_t> read;
  if (!ask.empty()) {
    PS_CO_RETURN_IF_ERROR(co_await Open());
    PS_CO_ASSIGN_OR_RETURN(std::vector<uint32_t> there, co_await mailbox_.client->SearchUids(ask));
    std::vector<uint32_t> unread;
    if (!rules_.also_read) {
      PS_CO_ASSIGN_OR_RETURN(unread, co_await mailbox_.client->SearchUnseen(ask));
    }
    const std::unordered_set<uint32_t> present(there.begin(), there.end());
    const std::unordered_set<uint32_t> unseen(unread.begin(), unread.end());
    for (uint32_t uid : ask) {
      if (!present.contains(uid)) continue;
      (rules_.also_read || unseen.contains(uid) ? wanted : read).push_back(uid);
    }
  }
  observe::Log(observe::Level::kInfo, "folder.reevaluated",
               {{"mailbox", folder_.mailbox.id},
                {"folder", folder_.folder},
                {"wanted", wanted.size()},
                {"still_read", read.size()}});
  const std::vector<uint32_t> none;
  for (size_t begin = 0; begin < std::max({wanted.size(), read.size(), too_old.size()}); begin += kDecisionsPerCommit) {
    auto part = [begin](const std::vector<uint32_t>& all) {
      const size_t from = std::min(all.size(), begin);
      const size_t to = std::min(all.size(), begin + kDecisionsPerCommit);
      return std::vector<uint32_t>(all.begin() + static_cast<std::ptrdiff_t>(from),
                                   all.begin() + static_cast<std::ptrdiff_t>(to));
    };
    const std::vector<uint32_t> some_wanted = part(wanted);
    const std::vector<uint32_t> some_read = part(read);
    const std::vector<uint32_t> some_old = part(too_old);
    auto apply = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
      PS_CO_RETURN_IF_ERROR(co_await Reconsider(tx, folder_, state_.uid_validity, some_wanted, some_read));
      co_return co_await SettleAsRead(tx, folder_, state_.uid_validity, none, some_old);
    };
    PS_CO_RETURN_IF_ERROR(co_await context_.committer.Commit(hold_, apply));
    hold_.nothing_pending = false;
    PS_CO_RETURN_IF_ERROR(CheckStop());
  }
  co_return absl::OkStatus();
}

}  // namespace poststelle::fetcher
