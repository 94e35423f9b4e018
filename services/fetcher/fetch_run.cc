#include "services/fetcher/fetch_run.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "libs/base/reason.h"
#include "libs/base/status_macros.h"
#include "libs/observe/log.h"
#include "services/fetcher/after_import.h"
#include "services/fetcher/folder_listing.h"
#include "services/fetcher/imap_options.h"
#include "services/fetcher/message_fetcher.h"

namespace poststelle::fetcher {
namespace {

// The session goes on, so the mailbox's other folders can be polled.
bool IsOfTheFolderAlone(const absl::Status& status) {
  const imap::ErrorKind kind = imap::GetErrorKind(status);
  return kind == imap::ErrorKind::kFolderMissing || kind == imap::ErrorKind::kServerRefused ||
         ReasonOf(status) == kNoUidValidity;
}

// One poll. Lives on RunFetch's frame; its steps run one after the other on one coroutine.
class FetchRun {
 public:
  FetchRun(FetchContext& context, MailboxRef mailbox, Hold& hold, const std::atomic<bool>& stop)
      : context_(context),
        mailbox_(std::move(mailbox)),
        folders_(FoldersOf(*mailbox_)),
        hold_(hold),
        stop_(stop),
        started_(absl::Now()) {}

  async::Task<absl::StatusOr<FetchReport>> Run();

 private:
  // A folder while it is polled.
  struct Folder {
    std::unique_ptr<FolderListing> listing;
    std::unique_ptr<MessageFetcher> fetcher;  // once something of it is to be fetched
    absl::Status failure;                     // of this folder alone: it is left alone for the rest of the poll
  };
  async::Task<absl::Status> LoadCursors();
  async::Task<absl::Status> PollFolders();
  async::Task<absl::Status> PollGroup(const std::vector<size_t>& group);
  async::Task<absl::Status> Fetch(Folder& folder, bool new_only);
  // Settles what came of a step with `folder`: what is of the folder alone lets the others go on.
  absl::Status Settle(Folder& folder, absl::Status status);
  async::Task<absl::Status> Act();
  async::Task<absl::Status> SettleLeftFolders();
  async::Task<absl::Status> FetchLeft(const LeftFolder& left);
  absl::Status CheckStop() const;
  absl::Status JoinFailures() const;

  FetchContext& context_;
  const MailboxRef mailbox_;
  const std::vector<FolderKey> folders_;
  Hold& hold_;
  const std::atomic<bool>& stop_;
  const absl::Time started_;

  OpenMailbox open_;
  std::vector<Folder> polled_;  // in the order of folders_
  std::vector<LeftFolder> left_;
  bool left_again_ = false;  // something of them is still to be tried again
  FetchReport report_;
};

absl::Status FetchRun::CheckStop() const {
  if (hold_.lost) return absl::AbortedError("another worker took over this mailbox");
  if (stop_) return absl::CancelledError("the poll was stopped");
  return absl::OkStatus();
}

async::Task<absl::StatusOr<FetchReport>> FetchRun::Run() {
  PS_CO_ASSIGN_OR_RETURN(open_, co_await ConnectTo(context_, *mailbox_));
  PS_CO_RETURN_IF_ERROR(co_await LoadCursors());
  PS_CO_RETURN_IF_ERROR(co_await PollFolders());
  PS_CO_RETURN_IF_ERROR(co_await SettleLeftFolders());
  PS_CO_RETURN_IF_ERROR(co_await Act());

  // Losing the connection while saying goodbye costs nothing. A poll that found nothing does not spend a round trip on
  // it; behind a large answer it is awaited, since some servers cut that short otherwise.
  absl::Status goodbye;
  if (report_.listed == 0 && report_.published == 0 && !report_.acted) {
    goodbye = co_await open_.client->Leave();
  } else {
    goodbye = co_await open_.client->Logout();
  }
  if (!goodbye.ok()) {
    observe::Log(observe::Level::kDebug, "imap.logout_failed",
                 {{"mailbox", folders_.front().mailbox.id}, {"error", std::string(goodbye.message())}});
  }
  if (!hold_.action_notice.empty()) report_.notice = hold_.action_notice;
  report_.folder_failure = JoinFailures();
  co_return report_;
}

// One failure of several folders; OK where all went well.
absl::Status FetchRun::JoinFailures() const {
  absl::Status joined;
  for (const Folder& folder : polled_) {
    if (folder.failure.ok()) continue;
    if (joined.ok()) {
      joined = folder.failure;
      continue;
    }
    absl::Status both(joined.code(), absl::StrCat(joined.message(), " ", folder.failure.message()));
    joined.ForEachPayload([&both](auto url, const absl::Cord& payload) { both.SetPayload(url, payload); });
    joined = std::move(both);
  }
  return joined;
}

async::Task<absl::Status> FetchRun::LoadCursors() {
  hold_.TurnTo(folders_.front());
  bool known = true;
  std::vector<std::string> names;
  for (const FolderKey& folder : folders_) {
    hold_.TurnTo(folder);
    known = known && hold_.cursor_known;
    names.push_back(folder.folder);
  }
  known = known && names == hold_.watched;  // with other folders there may be left ones
  if (known) co_return absl::OkStatus();
  hold_.fence = 0;  // an unknown cursor means a broken lease: the fence is taken anew
  hold_.ForgetCursors();
  hold_.next_action = absl::InfinitePast();
  std::vector<std::optional<Cursor>> cursors;
  sql::Work work = [this, &cursors](sql::Transaction& tx) -> async::Task<absl::Status> {
    cursors.clear();
    for (const FolderKey& folder : folders_) {
      PS_CO_ASSIGN_OR_RETURN(std::optional<Cursor> cursor, co_await ReadCursor(tx, folder));
      cursors.push_back(cursor);
    }
    std::vector<std::string> key{folders_.front().mailbox.key};
    PS_CO_ASSIGN_OR_RETURN(std::vector<int64_t> fences, co_await ReadFences(tx, key));
    hold_.seen_fence = fences[0];
    PS_CO_ASSIGN_OR_RETURN(left_, co_await ReadLeftFolders(tx, folders_));
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await context_.database.Read(work));
  for (size_t i = 0; i < folders_.size(); ++i) {
    hold_.TurnTo(folders_[i]);
    hold_.cursor = cursors[i];
    hold_.cursor_known = true;
    hold_.nothing_pending = false;
  }
  hold_.watched = std::move(names);
  co_return absl::OkStatus();
}

async::Task<absl::Status> FetchRun::PollFolders() {
  polled_.resize(folders_.size());
  std::vector<size_t> group;
  std::vector<size_t> troubled;
  for (size_t i = 0; i < folders_.size(); ++i) {
    Folder& folder = polled_[i];
    if (open_.states[i].ok()) {
      folder.listing = std::make_unique<FolderListing>(context_, *mailbox_, hold_, open_, folders_[i], *open_.states[i],
                                                       started_, stop_);
      (folders_[i].folder == hold_.troubled ? troubled : group).push_back(i);
    } else {
      folder.failure = open_.states[i].status();
    }
  }
  // A mailbox of which nothing can be read fails as a whole.
  if (group.empty() && troubled.empty()) co_return JoinFailures();
  PS_CO_RETURN_IF_ERROR(co_await PollGroup(group));
  if (!troubled.empty()) {
    if (!group.empty()) PS_CO_RETURN_IF_ERROR(co_await Act());
    PS_CO_RETURN_IF_ERROR(co_await PollGroup(troubled));
  }
  hold_.troubled.clear();
  const bool all_failed =
      std::none_of(polled_.begin(), polled_.end(), [](const Folder& folder) { return folder.failure.ok(); });
  co_return all_failed ? JoinFailures() : absl::OkStatus();
}

// Lists all, then fetches: new mail of every folder before the backlog of any.
async::Task<absl::Status> FetchRun::PollGroup(const std::vector<size_t>& group) {
  for (size_t i : group) {
    PS_CO_RETURN_IF_ERROR(CheckStop());
    hold_.TurnTo(folders_[i]);
    absl::Status listed = co_await polled_[i].listing->Run();
    report_.listed += polled_[i].listing->listed();
    const std::string& notice = polled_[i].listing->notice();
    if (!notice.empty()) absl::StrAppend(&report_.notice, report_.notice.empty() ? "" : " ", notice);
    PS_CO_RETURN_IF_ERROR(Settle(polled_[i], std::move(listed)));
  }
  for (const bool new_only : {true, false}) {
    if (new_only && group.size() == 1) continue;  // within a folder new mail comes first anyway
    for (size_t i : group) {
      hold_.TurnTo(folders_[i]);
      // A poll that finds nothing costs no SQL statement.
      if (!polled_[i].failure.ok() || hold_.nothing_pending) continue;
      absl::Status fetched = co_await Fetch(polled_[i], new_only);
      PS_CO_RETURN_IF_ERROR(Settle(polled_[i], std::move(fetched)));
    }
  }
  co_return absl::OkStatus();
}

async::Task<absl::Status> FetchRun::Fetch(Folder& folder, bool new_only) {
  const std::string& name = folder.listing->folder().folder;
  imap::FolderState before;
  before.uid_validity = folder.listing->uid_validity();
  PS_CO_ASSIGN_OR_RETURN(const imap::FolderState state, co_await open_.Enter(name, before));
  if (state.uid_validity != before.uid_validity) {
    co_return absl::AbortedError("the server rebuilt the folder while it was polled; it is listed anew");
  }
  if (folder.fetcher == nullptr) {
    folder.fetcher =
        std::make_unique<MessageFetcher>(context_, *mailbox_, hold_, *open_.client, before.uid_validity, stop_);
  }
  const int before_this = folder.fetcher->published();
  absl::Status fetched = co_await folder.fetcher->FetchAll(new_only);
  report_.published += folder.fetcher->published() - before_this;
  co_return fetched;
}

absl::Status FetchRun::Settle(Folder& folder, absl::Status status) {
  if (status.ok()) return status;
  if (folders_.size() == 1) return status;
  if (!IsOfTheFolderAlone(status)) {
    if (!stop_ && !absl::IsAborted(status)) hold_.troubled = folder.listing->folder().folder;
    return status;
  }
  absl::Status named(status.code(), absl::StrCat("folder ", folder.listing->folder().folder, ": ", status.message()));
  status.ForEachPayload([&named](auto url, const absl::Cord& payload) { named.SetPayload(url, payload); });
  folder.failure = std::move(named);
  return absl::OkStatus();
}

async::Task<absl::Status> FetchRun::Act() {
  PS_CO_RETURN_IF_ERROR(CheckStop());
  PS_CO_ASSIGN_OR_RETURN(const bool acted, co_await ActAfterImport(context_, *mailbox_, hold_, open_, stop_));
  report_.acted = report_.acted || acted;
  co_return absl::OkStatus();
}

// What a committed listing holds is not lost because somebody chose other folders since (SPEC §5.1): it is still
// fetched from the folder where it lies, after the mail of the present one, which so never waits for it. Only what
// can't be fetched any more (the folder is gone or rebuilt, the connection changed) ends as gone. What was passed over
// as read is passed over for good: nobody looks any more whether it becomes unread.
async::Task<absl::Status> FetchRun::SettleLeftFolders() {
  absl::Status status;
  for (const LeftFolder& left : left_) {
    status = CheckStop();
    if (!status.ok()) break;
    hold_.TurnTo(left.key);
    status = co_await FetchLeft(left);
    if (!status.ok()) break;
  }
  hold_.TurnTo(folders_.front());
  if (left_again_) hold_.ForgetCursors();  // the next poll looks for it again
  co_return status;
}

async::Task<absl::Status> FetchRun::FetchLeft(const LeftFolder& left) {
  bool unfinished = false;  // something of it is still to be tried again
  if (left.key.generation == folders_.front().generation) {
    absl::StatusOr<imap::FolderState> state = co_await open_.Enter(left.key.folder, imap::FolderState());
    const imap::ErrorKind kind = imap::GetErrorKind(state.status());
    if (kind == imap::ErrorKind::kServerRefused) {
      // Perhaps only for now: asked again at the next poll, without holding up the present folders.
      left_again_ = true;
      report_.notice =
          absl::StrCat("Mail of the folder ", left.key.folder, ", which the mailbox no longer watches, is ",
                       "still to be fetched: ", std::string(state.status().message()));
      co_return absl::OkStatus();
    }
    if (!state.ok() && kind != imap::ErrorKind::kFolderMissing) co_return state.status();
    if (state.ok() && state->uid_validity == left.uid_validity) {
      MessageFetcher fetcher(context_, *mailbox_, hold_, *open_.client, left.uid_validity, stop_);
      absl::Status fetched = co_await fetcher.FetchAll(false);
      report_.published += fetcher.published();
      if (!fetched.ok()) co_return fetched;
      unfinished = !hold_.nothing_pending;
    }
  }
  if (unfinished) {
    left_again_ = true;
    co_return absl::OkStatus();
  }
  auto close = [&left](sql::Transaction& tx) { return CloseLeftFolder(tx, left); };
  PS_CO_RETURN_IF_ERROR(co_await context_.committer.Commit(hold_, close));
  hold_.blamed.clear();
  hold_.resized.clear();
  co_return absl::OkStatus();
}

}  // namespace

async::Task<absl::StatusOr<FetchReport>> RunFetch(FetchContext& context, MailboxRef mailbox, Hold& hold,
                                                  const std::atomic<bool>& stop) {
  FetchRun run(context, std::move(mailbox), hold, stop);
  co_return co_await run.Run();
}

async::Task<absl::StatusOr<imap::FolderState>> OpenMailbox::Enter(std::string folder, imap::FolderState known) {
  if (standing_in == folder) co_return known;
  standing_in.clear();
  PS_CO_ASSIGN_OR_RETURN(const imap::FolderState state, co_await client->Examine(folder));
  standing_in = folder;
  co_return state;
}

async::Task<absl::StatusOr<OpenMailbox>> ConnectTo(FetchContext& context, const config::v1::Mailbox& mailbox) {
  const config::v1::Connection& connection = mailbox.connection();
  PS_CO_ASSIGN_OR_RETURN(Credentials credentials, co_await context.credentials.Get(mailbox));
  imap::ConnectOptions options = ImapOptions(connection);
  options.login = credentials.login_name;
  options.password = credentials.password;
  options.limits.max_body_bytes = context.max_message_size + (1 << 20);
  options.timeouts = imap::Timeouts::All(context.command_timeout);
  const std::vector<FolderKey> folders = FoldersOf(mailbox);
  // The first one last: it stays open, and most mail comes there.
  for (size_t i = 1; i <= folders.size(); ++i) options.folders.push_back(folders[i % folders.size()].folder);
  options.known_servers = context.known_servers.get();
  options.server = absl::StrCat(connection.host(), ":", connection.port());
  OpenMailbox open;
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
  PS_CO_ASSIGN_OR_RETURN(open.states, co_await open.client->ExamineAll(options.folders));
  std::rotate(open.states.begin(), open.states.end() - 1, open.states.end());
  if (open.states.front().ok()) open.standing_in = folders.front().folder;
  for (size_t i = 0; i < open.states.size(); ++i) {
    if (!open.states[i].ok() || open.states[i]->uid_validity != 0) continue;
    open.states[i] = WithReason(
        absl::FailedPreconditionError(absl::StrCat("the server told no UIDVALIDITY for the folder ", folders[i].folder,
                                                   ", so its messages can't be told apart over time")),
        kNoUidValidity);
  }
  co_return open;
}

}  // namespace poststelle::fetcher
