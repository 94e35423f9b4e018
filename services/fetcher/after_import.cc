#include "services/fetcher/after_import.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "libs/base/failpoint.h"
#include "libs/base/status_macros.h"
#include "libs/observe/log.h"

namespace poststelle::fetcher {
namespace {

using Params = std::vector<sql::Value>;

constexpr int64_t kReadAtOnce = 1000;
constexpr size_t kBatch = 500;
// From so many tries on messages go one by one, so that one that the server refuses does not hold back its neighbours.
constexpr int kTogetherTries = 2;
constexpr int kAlonePerPoll = 50;
constexpr absl::Duration kLongestWait = absl::Hours(1);

struct Due {
  std::string message_id;
  int64_t generation = 0;
  std::string folder;
  uint32_t uid_validity = 0;
  uint32_t uid = 0;
  std::string action;
  int tries = 0;
};

absl::Duration WaitAfter(const config::v1::Mailbox& mailbox, int tries) {
  const auto& interval = mailbox.import_options().fetch_interval();
  absl::Duration wait = absl::Seconds(interval.seconds()) + absl::Nanoseconds(interval.nanos());
  wait = std::max(wait, absl::Milliseconds(100));
  for (int i = 0; i < std::min(tries, 20) && wait < kLongestWait; ++i) wait *= 2;
  return std::min(wait, kLongestWait);
}

// What became of a batch.
struct Result {
  enum class Kind { kDone, kWait, kRefused, kImpossible };
  Kind kind = Kind::kDone;
  std::string why;
};

// One round over everything that is due. Lives on ActAfterImport's frame.
class Round {
 public:
  Round(FetchContext& context, const config::v1::Mailbox& mailbox, Hold& hold, OpenMailbox& open,
        const std::atomic<bool>& stop)
      : context_(context),
        mailbox_(mailbox),
        hold_(hold),
        open_(open),
        stop_(stop),
        action_(ActionOf(mailbox)),
        target_(CanonicalFolder(mailbox.import_options().after_import().target_folder())),
        folders_(FoldersOf(mailbox)) {}

  async::Task<absl::Status> Run();
  bool spoke() const { return spoke_; }

 private:
  async::Task<absl::StatusOr<std::vector<Due>>> Read();
  async::Task<absl::Status> ActOn(std::vector<Due> batch);
  async::Task<absl::StatusOr<Result>> Perform(const std::vector<Due>& batch);
  async::Task<absl::Status> Change(const std::vector<uint32_t>& uids, const imap::WritableFolder& folder);
  async::Task<absl::Status> Forget(const std::vector<Due>& rows);
  async::Task<absl::Status> Write(std::vector<sql::Statement> statements);
  absl::Status CheckStop() const;

  FetchContext& context_;
  const config::v1::Mailbox& mailbox_;
  Hold& hold_;
  OpenMailbox& open_;
  const std::atomic<bool>& stop_;
  const std::string action_;
  const std::string target_;
  const std::vector<FolderKey> folders_;
  bool spoke_ = false;
  int alone_ = 0;
  std::string notice_;
  std::optional<int64_t> next_ms_;  // when the earliest of what is left is due
};

absl::Status Round::CheckStop() const {
  if (hold_.lost) return absl::AbortedError("another worker took over this mailbox");
  if (stop_) return absl::CancelledError("the poll was stopped");
  return absl::OkStatus();
}

async::Task<absl::Status> Round::Write(std::vector<sql::Statement> statements) {
  auto apply = [&statements](sql::Transaction& tx) -> async::Task<absl::Status> {
    std::vector<sql::Statement> again = statements;  // a transaction may be replayed
    co_return (co_await tx.ExecuteAll(std::move(again))).status();
  };
  co_return co_await context_.committer.Commit(hold_, apply);
}

async::Task<absl::StatusOr<std::vector<Due>>> Round::Read() {
  std::vector<Due> out;
  sql::Work work = [this, &out](sql::Transaction& tx) -> async::Task<absl::Status> {
    out.clear();
    const std::string& key = folders_.front().mailbox.key;
    std::vector<sql::Statement> statements{
        {"SELECT message_id, generation, folder, uid_validity, uid, action, attempts FROM after_import WHERE "
         "mailbox_key "
         "= $1 AND problem = '' AND next_time <= $2 ORDER BY generation, folder, uid_validity, uid LIMIT $3",
         {key, NowMs(), kReadAtOnce}},
        {"SELECT MIN(next_time) FROM after_import WHERE mailbox_key = $1 AND problem = ''", {key}}};
    PS_CO_ASSIGN_OR_RETURN(std::vector<sql::Result> read, co_await tx.ExecuteAll(std::move(statements)));
    for (const sql::Row& row : read[0].rows) {
      Due due;
      due.message_id = row.Text(0);
      due.generation = row.Int(1);
      due.folder = row.Text(2);
      due.uid_validity = static_cast<uint32_t>(row.Int(3));
      due.uid = static_cast<uint32_t>(row.Int(4));
      due.action = row.Text(5);
      due.tries = static_cast<int>(row.Int(6));
      out.push_back(std::move(due));
    }
    next_ms_.reset();
    if (!read[1].rows.empty() && !read[1].rows[0].IsNull(0)) next_ms_ = read[1].rows[0].Int(0);
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await context_.database.Read(work));
  co_return out;
}

async::Task<absl::Status> Round::Forget(const std::vector<Due>& rows) {
  std::vector<sql::Statement> statements;
  for (const Due& due : rows) {
    statements.push_back({"DELETE FROM after_import WHERE message_id = $1 AND problem = ''", {due.message_id}});
  }
  co_return co_await Write(std::move(statements));
}

async::Task<absl::Status> Round::Run() {
  bool any = false;
  while (true) {
    PS_CO_ASSIGN_OR_RETURN(std::vector<Due> due, co_await Read());
    if (due.empty()) break;
    any = true;
    // What the mailbox no longer asks for is not done any more, least of all a deletion.
    std::vector<Due> void_now;
    for (Due& one : due) {
      if (one.action != action_) void_now.push_back(one);
    }
    if (!void_now.empty()) PS_CO_RETURN_IF_ERROR(co_await Forget(void_now));
    std::erase_if(due, [this](const Due& one) { return one.action != action_; });
    auto place = [](const Due& one) { return std::tie(one.generation, one.folder, one.uid_validity); };
    for (size_t begin = 0; begin < due.size();) {
      size_t end = begin + 1;
      const bool alone = due[begin].tries >= kTogetherTries;
      while (!alone && end < due.size() && end - begin < kBatch && place(due[end]) == place(due[begin]) &&
             due[end].tries < kTogetherTries) {
        ++end;
      }
      if (alone && ++alone_ > kAlonePerPoll) break;
      PS_CO_RETURN_IF_ERROR(CheckStop());
      std::vector<Due> batch(due.begin() + static_cast<std::ptrdiff_t>(begin),
                             due.begin() + static_cast<std::ptrdiff_t>(end));
      PS_CO_RETURN_IF_ERROR(co_await ActOn(std::move(batch)));
      begin = end;
    }
    if (alone_ > kAlonePerPoll) break;  // the rest at the next poll
  }
  if (any) hold_.action_notice = notice_;  // otherwise what was told last still holds
  hold_.next_action = next_ms_ ? absl::FromUnixMillis(*next_ms_) : absl::InfiniteFuture();
  co_return absl::OkStatus();
}

async::Task<absl::Status> Round::ActOn(std::vector<Due> batch) {
  const int tries = batch.front().tries + 1;
  // The try is counted before it is made, and the fence is looked at.
  std::vector<sql::Statement> count;
  const int64_t again = absl::ToUnixMillis(absl::Now() + WaitAfter(mailbox_, tries));
  for (const Due& due : batch) {
    count.push_back({"UPDATE after_import SET attempts = attempts + 1, next_time = $2 WHERE message_id = $1",
                     {due.message_id, again}});
  }
  PS_CO_RETURN_IF_ERROR(co_await Write(std::move(count)));
  Failpoint("action.attempt_counted");
  PS_CO_RETURN_IF_ERROR(CheckStop());
  PS_CO_ASSIGN_OR_RETURN(Result result, co_await Perform(batch));
  if (result.kind == Result::Kind::kDone) {
    Failpoint("action.done_on_server");
    co_return co_await Forget(batch);
  }
  const bool over =
      result.kind == Result::Kind::kImpossible || (result.kind == Result::Kind::kRefused && tries >= kMaxActionTries);
  const std::string what = action_ == "seen" ? "marked as seen" : action_ == "move" ? "moved" : "deleted";
  notice_ = absl::StrCat(kActionNotice, batch.size(), batch.size() == 1 ? " message" : " messages", " of ",
                         batch.front().folder, over ? " will not be " : " could not be ", what, ": ", result.why,
                         over ? " It was given up." : " It is tried again by itself.");
  observe::Log(observe::Level::kWarning, over ? "action.given_up" : "action.refused",
               {{"mailbox", folders_.front().mailbox.id},
                {"folder", batch.front().folder},
                {"messages", batch.size()},
                {"tries", tries},
                {"text", result.why}});
  if (!over) co_return absl::OkStatus();
  const std::string problem = absl::StrCat("After its import it was not ", what, ": ", result.why);
  std::vector<sql::Statement> give_up;
  for (const Due& due : batch) {
    give_up.push_back({"UPDATE after_import SET problem = $2 WHERE message_id = $1", {due.message_id, problem}});
  }
  co_return co_await Write(std::move(give_up));
}

async::Task<absl::StatusOr<Result>> Round::Perform(const std::vector<Due>& batch) {
  Result result;
  const Due& first = batch.front();
  if (first.generation != folders_.front().generation) {
    result.kind = Result::Kind::kImpossible;
    result.why = "The connection of the mailbox changed before it could be done.";
    co_return result;
  }
  auto is_target = [this](const FolderKey& folder) { return folder.folder == target_; };
  if (action_ == "move" && std::any_of(folders_.begin(), folders_.end(), is_target)) {
    result.kind = Result::Kind::kWait;
    result.why = absl::StrCat("The folder ", target_, " is itself watched. Choose another target folder.");
    co_return result;
  }
  spoke_ = true;
  open_.standing_in.clear();
  absl::StatusOr<imap::WritableFolder> folder = co_await open_.client->Select(first.folder);
  absl::Status done = folder.status();
  if (folder.ok()) {
    if (folder->state.uid_validity != first.uid_validity) {
      result.kind = Result::Kind::kImpossible;
      result.why = "The server rebuilt the folder before it could be done.";
      co_return result;
    }
    if (folder->read_only) {
      done = imap::MakeError(imap::ErrorKind::kServerRefused, "the server opens the folder read-only.");
    } else {
      std::vector<uint32_t> uids;
      for (const Due& due : batch) uids.push_back(due.uid);
      PS_CO_RETURN_IF_ERROR(CheckStop());
      done = co_await Change(uids, *folder);
    }
  }
  if (done.ok()) co_return result;
  const imap::ErrorKind kind = imap::GetErrorKind(done);
  const bool waits = kind == imap::ErrorKind::kFolderMissing || imap::IsPassing(done);
  if (!waits && kind != imap::ErrorKind::kServerRefused) co_return done;
  result.kind = waits ? Result::Kind::kWait : Result::Kind::kRefused;
  result.why = std::string(done.message());
  if (kind == imap::ErrorKind::kFolderMissing) absl::StrAppend(&result.why, " Create the folder, or choose another.");
  co_return result;
}

async::Task<absl::Status> Round::Change(const std::vector<uint32_t>& uids, const imap::WritableFolder& folder) {
  imap::Client& client = *open_.client;
  if (action_ == "seen") co_return co_await client.AddFlag(uids, "\\Seen");
  if (action_ == "move") {
    if (folder.move) co_return co_await client.Move(uids, target_);
    PS_CO_RETURN_IF_ERROR(co_await client.Copy(uids, target_));
  }
  PS_CO_RETURN_IF_ERROR(co_await client.AddFlag(uids, "\\Deleted"));
  if (folder.uid_expunge) co_return co_await client.UidExpunge(uids);
  // A plain EXPUNGE would remove what others marked as well.
  notice_ = absl::StrCat(kActionNotice,
                         "the server can't remove single messages (it has no UIDPLUS), so they were only marked as "
                         "deleted. A mail program can remove them.");
  co_return absl::OkStatus();
}

}  // namespace

std::string ActionOf(const config::v1::Mailbox& mailbox) {
  switch (mailbox.import_options().after_import().action()) {
    case config::v1::AfterImport::ACTION_MARK_SEEN:
      return "seen";
    case config::v1::AfterImport::ACTION_MOVE:
      return "move";
    case config::v1::AfterImport::ACTION_DELETE:
      return "delete";
    default:
      return "";
  }
}

async::Task<absl::StatusOr<bool>> ActAfterImport(FetchContext& context, const config::v1::Mailbox& mailbox, Hold& hold,
                                                 OpenMailbox& open, const std::atomic<bool>& stop) {
  if (absl::Now() < hold.next_action) co_return false;
  Round round(context, mailbox, hold, open, stop);
  PS_CO_RETURN_IF_ERROR(co_await round.Run());
  co_return round.spoke();
}

}  // namespace poststelle::fetcher
