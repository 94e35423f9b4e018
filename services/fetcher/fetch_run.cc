#include "services/fetcher/fetch_run.h"

#include <algorithm>
#include <cstdlib>
#include <unordered_set>

#include "absl/strings/str_cat.h"
#include "libs/base/failpoint.h"
#include "libs/base/reason.h"
#include "libs/base/status_macros.h"
#include "libs/mail/digest.h"
#include "libs/observe/log.h"
#include "services/fetcher/listing_windows.h"
#include "services/fetcher/message_fetcher.h"

namespace poststelle::fetcher {
namespace {

// Decisions a commit: keeps a transaction short, and a first poll of a huge folder in bounded memory.
constexpr size_t kDecisionsPerCommit = 1000;

// One poll. Lives on RunFetch's frame; its steps run one after the other on one coroutine.
class FetchRun {
 public:
  FetchRun(FetchContext& context, MailboxRef mailbox, Hold& hold, const std::atomic<bool>& stop)
      : context_(context), mailbox_(std::move(mailbox)), hold_(hold), stop_(stop), started_(absl::Now()) {}

  async::Task<absl::StatusOr<FetchReport>> Run();

 private:
  async::Task<absl::Status> LoadCursor();
  async::Task<absl::Status> List();
  async::Task<absl::Status> ListWindow(imap::UidRange range, ListingWindows& windows);
  async::Task<absl::StatusOr<Decision>> DecideOne(const ListedMessage& message);
  async::Task<absl::Status> CommitDecisions(std::vector<Decision> decisions, Cursor cursor);
  async::Task<absl::Status> RecheckReadMail();
  async::Task<absl::Status> SettleLeftFolders();
  async::Task<absl::Status> FetchLeft(const LeftFolder& left);
  absl::Status CheckStop() const;
  const FolderKey& folder() const { return hold_.folder; }

  FetchContext& context_;
  const MailboxRef mailbox_;
  Hold& hold_;
  const std::atomic<bool>& stop_;
  const absl::Time started_;

  OpenFolder open_;
  ListingRules rules_;
  Cursor cursor_;           // as committed
  bool recognise_ = false;  // older identities exist: ask for header fields and match anchors
  bool rebuilt_ = false;    // UIDVALIDITY differs from the cursor's
  std::vector<OpenRow> stale_pending_;
  std::vector<LeftFolder> left_;
  std::vector<std::string> used_matches_;  // matched since the last commit
  FetchReport report_;
};

absl::Status FetchRun::CheckStop() const {
  if (hold_.lost) return absl::AbortedError("another worker took over this mailbox");
  if (stop_) return absl::CancelledError("the poll was stopped");
  return absl::OkStatus();
}

async::Task<absl::StatusOr<FetchReport>> FetchRun::Run() {
  PS_CO_ASSIGN_OR_RETURN(open_, co_await ConnectTo(context_, *mailbox_));
  PS_CO_RETURN_IF_ERROR(co_await LoadCursor());
  PS_CO_RETURN_IF_ERROR(co_await List());
  PS_CO_RETURN_IF_ERROR(co_await RecheckReadMail());

  // A poll that finds nothing costs no SQL statement.
  if (!hold_.nothing_pending) {
    MessageFetcher fetcher(context_, *mailbox_, hold_, *open_.client, open_.state.uid_validity, stop_);
    absl::StatusOr<int> published = co_await fetcher.FetchAll();
    if (!published.ok()) co_return published.status();
    report_.published = *published;
  }
  PS_CO_RETURN_IF_ERROR(co_await SettleLeftFolders());

  // Losing the connection while saying goodbye costs nothing. A poll that found nothing does not spend a round trip on
  // it; behind a large answer it is awaited, since some servers cut that short otherwise.
  absl::Status goodbye;
  if (report_.listed == 0 && report_.published == 0) {
    goodbye = co_await open_.client->Leave();
  } else {
    goodbye = co_await open_.client->Logout();
  }
  if (!goodbye.ok()) {
    observe::Log(observe::Level::kDebug, "imap.logout_failed",
                 {{"mailbox", folder().mailbox.id}, {"error", std::string(goodbye.message())}});
  }
  co_return report_;
}

async::Task<absl::Status> FetchRun::LoadCursor() {
  const uint32_t validity = open_.state.uid_validity;
  if (!hold_.cursor_known) {
    hold_.fence = 0;  // an unknown cursor means a broken lease: the fence is taken anew
    hold_.nothing_pending = false;
    std::optional<Cursor> cursor;
    sql::Work work = [this, &cursor](sql::Transaction& tx) -> async::Task<absl::Status> {
      PS_CO_ASSIGN_OR_RETURN(cursor, co_await ReadCursor(tx, folder()));
      std::vector<std::string> key{folder().mailbox.key};
      PS_CO_ASSIGN_OR_RETURN(std::vector<int64_t> fences, co_await ReadFences(tx, key));
      hold_.seen_fence = fences[0];
      PS_CO_ASSIGN_OR_RETURN(left_, co_await ReadLeftFolders(tx, folder()));
      co_return absl::OkStatus();
    };
    PS_CO_RETURN_IF_ERROR(co_await context_.database.Read(work));
    hold_.cursor = cursor;
    hold_.cursor_known = true;
  }
  cursor_ = hold_.cursor.value_or(Cursor{});
  rules_ = RulesFor(*mailbox_, cursor_, started_);
  rebuilt_ = cursor_.uid_validity != 0 && cursor_.uid_validity != validity;
  if (rebuilt_) {
    report_.notice = absl::StrCat("The server rebuilt the folder (UIDVALIDITY ", cursor_.uid_validity, " became ",
                                  validity, "); mail was recognised by its headers.");
    observe::Log(observe::Level::kWarning, "folder.uid_validity_changed",
                 {{"mailbox", folder().mailbox.id}, {"from", cursor_.uid_validity}, {"to", validity}});
    cursor_.watermark = 0;
    hold_.blamed.clear();  // these UIDs name other messages now
    hold_.resized.clear();
    cursor_.highest_modseq = 0;
    // Committed with the first part of the relisting: whoever goes on after an interruption still recognises mail.
    cursor_.reference_ms = -std::abs(cursor_.reference_ms);
  }
  const bool complete = cursor_.uid_validity == validity && !rules_.first_listing && cursor_.reference_ms > 0;
  if (complete) co_return absl::OkStatus();
  sql::Work work = [this, validity](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_ASSIGN_OR_RETURN(recognise_, co_await HasOlderIdentities(tx, folder(), validity));
    PS_CO_ASSIGN_OR_RETURN(stale_pending_, co_await ReadStalePending(tx, folder(), validity));
    co_return absl::OkStatus();
  };
  co_return co_await context_.database.Read(work);
}

async::Task<absl::Status> FetchRun::List() {
  const imap::FolderState& state = open_.state;
  const bool known = cursor_.uid_validity == state.uid_validity && !rules_.first_listing && cursor_.reference_ms > 0;
  const bool nothing_new = state.exists == 0 || (state.uid_next != 0 && state.uid_next <= cursor_.watermark + 1);
  if (!nothing_new) {
    // Windows bound the memory of a first poll.
    ListingWindows windows(cursor_.watermark, state.uid_next, state.exists);
    while (std::optional<imap::UidRange> range = windows.Next()) {
      PS_CO_RETURN_IF_ERROR(CheckStop());
      PS_CO_RETURN_IF_ERROR(co_await ListWindow(*range, windows));
    }
  }
  const int64_t reference = absl::ToUnixMillis(started_);
  if (known) {
    context_.board.ListingCompleted(folder(), reference);
    hold_.cursor->reference_ms = reference;
    co_return absl::OkStatus();
  }
  // A first listing, or the first under a new UIDVALIDITY, is complete: from now on the age limit counts from it.
  Cursor complete = cursor_;
  complete.uid_validity = state.uid_validity;
  complete.reference_ms = reference;
  complete.enable_generation = mailbox_->enable_generation();
  auto apply = [this, complete](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_RETURN_IF_ERROR(co_await CloseStalePending(tx, folder(), complete.uid_validity));
    co_return co_await WriteCursor(tx, folder(), complete);
  };
  PS_CO_RETURN_IF_ERROR(co_await context_.committer.Commit(hold_, apply));
  cursor_ = complete;
  hold_.cursor = complete;
  co_return absl::OkStatus();
}

async::Task<absl::Status> FetchRun::ListWindow(imap::UidRange range, ListingWindows& windows) {
  ListingAnswer answer(range);
  auto on_message = [this, &answer](imap::MessageInfo info) -> absl::Status {
    if (!info.lacks.empty()) {
      answer.AddIncomplete(info.uid, info.lacks);
      return absl::OkStatus();
    }
    ListedMessage message;
    message.mail.uid = info.uid;
    message.mail.size = info.size;
    message.mail.internal_date = info.internal_date_unix;
    message.mail.seen = info.seen;
    message.mail.deleted = info.deleted;
    // Whoever sends a mail decides how long its headers are: none are kept.
    if (recognise_) {
      message.anchor = mail::AnchorFromHeaders(info.header_fields, info.size, info.internal_date_unix);
    }
    answer.Add(std::move(message));
    return absl::OkStatus();
  };
  std::function<absl::Status(imap::MessageInfo)> callback = on_message;
  PS_CO_RETURN_IF_ERROR(co_await open_.client->FetchInfos(range, recognise_, callback));
  if (std::optional<imap::UidRange> incomplete = answer.TakeIncomplete()) {
    PS_CO_RETURN_IF_ERROR(co_await open_.client->FetchInfos(*incomplete, recognise_, callback));
  }
  PS_CO_ASSIGN_OR_RETURN(std::vector<ListedMessage> items, answer.Take());
  Failpoint("listing.before_commit");

  for (size_t begin = 0; begin < items.size(); begin += kDecisionsPerCommit) {
    const size_t end = std::min(items.size(), begin + kDecisionsPerCommit);
    std::vector<Decision> decisions;
    decisions.reserve(end - begin);
    for (size_t i = begin; i < end; ++i) {
      PS_CO_ASSIGN_OR_RETURN(Decision decision, co_await DecideOne(items[i]));
      decisions.push_back(std::move(decision));
    }
    Cursor next = cursor_;
    next.uid_validity = open_.state.uid_validity;
    next.watermark = items[end - 1].mail.uid;
    PS_CO_RETURN_IF_ERROR(co_await CommitDecisions(std::move(decisions), next));
    PS_CO_RETURN_IF_ERROR(CheckStop());
  }
  if (answer.cut()) {
    windows.AnsweredCut(items.back().mail.uid, answer.highest());
  } else {
    windows.Answered(items.size());
  }
  co_return absl::OkStatus();
}

async::Task<absl::StatusOr<Decision>> FetchRun::DecideOne(const ListedMessage& message) {
  const Listed& mail = message.mail;
  const std::string& anchor = message.anchor;
  Decision decision = Decide(rules_, mail);
  if (!recognise_ || mail.deleted) co_return decision;
  std::optional<AnchorMatch> match;
  sql::Work work = [this, &anchor, &match](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_ASSIGN_OR_RETURN(match, co_await MatchAnchor(tx, folder(), open_.state.uid_validity, anchor, used_matches_));
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

async::Task<absl::Status> FetchRun::CommitDecisions(std::vector<Decision> decisions, Cursor cursor) {
  if (DeliberatelyBroken("watermark_without_pending")) {
    auto only_cursor = [this, &cursor](sql::Transaction& tx) { return WriteCursor(tx, folder(), cursor); };
    PS_CO_RETURN_IF_ERROR(co_await context_.committer.Commit(hold_, only_cursor));
    Failpoint("listing.in_transaction");
  }
  auto apply = [this, &decisions, &cursor](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_RETURN_IF_ERROR(co_await InsertDecisions(tx, folder(), cursor.uid_validity, decisions));
    Failpoint("listing.in_transaction");
    co_return co_await WriteCursor(tx, folder(), cursor);
  };
  PS_CO_RETURN_IF_ERROR(co_await context_.committer.Commit(hold_, apply));
  Failpoint("listing.after_commit");
  hold_.nothing_pending = false;
  cursor_ = cursor;
  hold_.cursor = cursor;
  used_matches_.clear();
  report_.listed += static_cast<int>(decisions.size());
  co_return absl::OkStatus();
}

async::Task<absl::Status> FetchRun::RecheckReadMail() {
  if (rules_.also_read) co_return absl::OkStatus();
  const uint64_t modseq = open_.state.highest_modseq;
  // HIGHESTMODSEQ that stands still says that no flag changed (RFC 7162 §3.1.2.1).
  if (modseq != 0 && modseq == cursor_.highest_modseq) co_return absl::OkStatus();
  std::vector<OpenRow> rows;
  sql::Work work = [this, &rows](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_ASSIGN_OR_RETURN(rows, co_await ReadAsRead(tx, folder(), open_.state.uid_validity));
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
    PS_CO_ASSIGN_OR_RETURN(unread, co_await open_.client->SearchUnseen(ask));
    std::unordered_set<uint32_t> asked(ask.begin(), ask.end());
    std::erase_if(unread, [&asked](uint32_t uid) { return !asked.contains(uid); });
  }
  if (unread.empty() && too_old.empty() && modseq == cursor_.highest_modseq) co_return absl::OkStatus();
  Cursor next = cursor_;
  next.highest_modseq = modseq;
  auto apply = [this, &unread, &too_old, &next](sql::Transaction& tx) -> async::Task<absl::Status> {
    hold_.nothing_pending = false;
    PS_CO_RETURN_IF_ERROR(co_await SettleAsRead(tx, folder(), open_.state.uid_validity, unread, too_old));
    co_return co_await WriteCursor(tx, folder(), next);
  };
  PS_CO_RETURN_IF_ERROR(co_await context_.committer.Commit(hold_, apply));
  cursor_ = next;
  hold_.cursor = next;
  co_return absl::OkStatus();
}

// What a committed listing holds is not lost because somebody chose another folder since (SPEC §5.1): it is still
// fetched from the folder where it lies, after the mail of the present one, which so never waits for it. Only what
// can't be fetched any more (the folder is gone or rebuilt, the connection changed) ends as gone. What was passed over
// as read is passed over for good: nobody looks any more whether it becomes unread.
async::Task<absl::Status> FetchRun::SettleLeftFolders() {
  for (const LeftFolder& left : left_) {
    PS_CO_RETURN_IF_ERROR(CheckStop());
    PS_CO_RETURN_IF_ERROR(co_await FetchLeft(left));
  }
  co_return absl::OkStatus();
}

async::Task<absl::Status> FetchRun::FetchLeft(const LeftFolder& left) {
  // A claim of its own on the same fence, because a claim is for one folder. Where this one is the first to write, the
  // mailbox's cursor was not compared: the next poll reads it anew.
  Hold hold;
  hold.folder = left.key;
  hold.fence = hold_.fence;
  if (hold.fence == 0) hold_.cursor_known = false;
  absl::Status status;
  bool unfinished = false;  // something of it is still to be tried again
  if (left.key.generation == folder().generation) {
    absl::StatusOr<imap::FolderState> state = co_await open_.client->Examine(left.key.folder);
    const imap::ErrorKind kind = imap::GetErrorKind(state.status());
    if (kind == imap::ErrorKind::kServerRefused) {
      // Perhaps only for now: asked again at the next poll, without holding up the present folder.
      hold_.cursor_known = false;
      report_.notice =
          absl::StrCat("Mail of the folder ", left.key.folder, ", which the mailbox no longer watches, is ",
                       "still to be fetched: ", std::string(state.status().message()));
      co_return absl::OkStatus();
    }
    if (!state.ok() && kind != imap::ErrorKind::kFolderMissing) co_return state.status();
    if (state.ok() && state->uid_validity == left.uid_validity) {
      hold.blamed.swap(hold_.blamed_elsewhere[left.key.folder]);
      MessageFetcher fetcher(context_, *mailbox_, hold, *open_.client, left.uid_validity, stop_);
      absl::StatusOr<int> published = co_await fetcher.FetchAll();
      status = published.status();
      if (published.ok()) report_.published += *published;
      unfinished = published.ok() && !hold.nothing_pending;
      hold_.blamed_elsewhere[left.key.folder].swap(hold.blamed);
    }
  }
  auto close = [&left](sql::Transaction& tx) { return CloseLeftFolder(tx, left); };
  std::function<async::Task<absl::Status>(sql::Transaction&)> apply = close;
  if (unfinished) {
    hold_.cursor_known = false;  // the next poll looks for it again
  } else if (status.ok()) {
    status = co_await context_.committer.Commit(hold, apply);
    if (status.ok()) hold_.blamed_elsewhere.erase(left.key.folder);
  }
  hold_.fence = hold.fence;
  if (hold.fence != 0) hold_.seen_fence = hold.fence;
  hold_.begun.merge(hold.begun);
  if (hold.lost) hold_.lost = true;
  co_return status;
}

}  // namespace

async::Task<absl::StatusOr<FetchReport>> RunFetch(FetchContext& context, MailboxRef mailbox, Hold& hold,
                                                  const std::atomic<bool>& stop) {
  FetchRun run(context, std::move(mailbox), hold, stop);
  co_return co_await run.Run();
}

async::Task<absl::StatusOr<OpenFolder>> ConnectTo(FetchContext& context, const config::v1::Mailbox& mailbox) {
  const config::v1::Connection& connection = mailbox.connection();
  PS_CO_ASSIGN_OR_RETURN(Credentials credentials, co_await context.credentials.Get(mailbox));
  imap::ConnectOptions options;
  switch (connection.encryption()) {
    case config::v1::Connection::ENCRYPTION_NONE:
      options.encryption = imap::Encryption::kNone;
      break;
    case config::v1::Connection::ENCRYPTION_STARTTLS:
      options.encryption = imap::Encryption::kStartTls;
      break;
    default:
      options.encryption = imap::Encryption::kTls;
      break;
  }
  options.tls.server_name = connection.host();
  options.tls.ca_certificates_pem = connection.ca_certificates_pem();
  options.tls.pinned_key_sha256 = connection.pinned_key_sha256();
  options.login = credentials.login_name;
  options.password = credentials.password;
  options.limits.max_body_bytes = context.max_message_size + (1 << 20);
  options.timeouts = imap::Timeouts::All(context.command_timeout);
  options.folder = FolderKeyOf(mailbox).folder;
  options.known_servers = context.known_servers.get();
  options.server = absl::StrCat(connection.host(), ":", connection.port());
  OpenFolder open;
  absl::Status connected;
  do {
    PS_CO_ASSIGN_OR_RETURN(std::unique_ptr<net::Stream> stream,
                           co_await context.dialer.Dial(connection.host(), static_cast<uint16_t>(connection.port()),
                                                        context.connect_timeout));
    const bool remembered = !context.known_servers->Find(options.server).empty();
    absl::StatusOr<std::unique_ptr<imap::Client>> client = co_await imap::Client::Connect(std::move(stream), options);
    connected = client.status();
    if (client.ok()) open.client = *std::move(client);
    // What had been remembered was of no use: once more, step by step.
    if (!connected.ok() && !(remembered && context.known_servers->Find(options.server).empty())) co_return connected;
  } while (!connected.ok());
  PS_CO_ASSIGN_OR_RETURN(open.state, co_await open.client->Examine(options.folder));
  if (open.state.uid_validity == 0) {
    co_return WithReason(absl::FailedPreconditionError("the server told no UIDVALIDITY for the folder, so its messages "
                                                       "can't be told apart over time"),
                         "PROTOCOL_ERROR");
  }
  co_return open;
}

}  // namespace poststelle::fetcher
