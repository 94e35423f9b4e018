#include "services/fetcher/status_board.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "libs/base/status_macros.h"
#include "libs/observe/log.h"
#include "libs/sql/insert.h"

namespace poststelle::fetcher {
namespace {

void SetTime(google::protobuf::Timestamp* out, absl::Time t) {
  const int64_t ms = absl::ToUnixMillis(t);
  out->set_seconds(ms / 1000);
  out->set_nanos(static_cast<int32_t>(ms % 1000 * 1000000));
}

absl::Time ToTime(const google::protobuf::Timestamp& t) {
  return absl::FromUnixSeconds(t.seconds()) + absl::Nanoseconds(t.nanos());
}

// What two workers know of a mailbox. Who polled it last knows best; but a worker that has only begun does not know how
// it went for the one before, and its polls alone do not say when the last one succeeded.
v1::MailboxStatus Together(const v1::MailboxStatus& one, const v1::MailboxStatus& other) {
  const bool one_is_later = ToTime(one.last_poll_time()) >= ToTime(other.last_poll_time());
  const v1::MailboxStatus& later = one_is_later ? one : other;
  const v1::MailboxStatus& earlier = one_is_later ? other : one;
  v1::MailboxStatus out = later;
  if (later.state() <= v1::MailboxStatus::STATE_WAITING && earlier.state() > v1::MailboxStatus::STATE_WAITING) {
    out = earlier;
    *out.mutable_last_poll_time() = later.last_poll_time();
  }
  if (ToTime(earlier.last_success_time()) > ToTime(out.last_success_time())) {
    *out.mutable_last_success_time() = earlier.last_success_time();
  }
  return out;
}

// How many rows a statement reads or updates; what is left of a statement repeats its last row.
constexpr size_t kRowsAStatement = 64;

// "`before` `row`, `row` … `after`", kRowsAStatement times, each # of a row replaced by the next parameter.
std::string ManyRows(const std::string& before, const std::string& row, const std::string& after) {
  std::string out = before;
  size_t parameter = 0;
  for (size_t i = 0; i < kRowsAStatement; ++i) {
    absl::StrAppend(&out, i == 0 ? " " : ", ");
    for (const char c : row)
      c == '#' ? absl::StrAppend(&out, "$", ++parameter) : absl::StrAppend(&out, std::string(1, c));
  }
  return out + after;
}

// As many statements of `sql`, made by ManyRows, as `rows` need. `sql` has to outlive the call that runs them.
std::vector<sql::Statement> StatementsFor(std::string_view sql, const std::vector<std::vector<sql::Value>>& rows) {
  std::vector<sql::Statement> out;
  for (size_t begin = 0; begin < rows.size(); begin += kRowsAStatement) {
    sql::Statement statement{sql, {}};
    for (size_t i = begin; i < begin + kRowsAStatement; ++i) {
      const std::vector<sql::Value>& row = rows[std::min(i, rows.size() - 1)];
      statement.params.insert(statement.params.end(), row.begin(), row.end());
    }
    out.push_back(std::move(statement));
  }
  return out;
}

}  // namespace

v1::MailboxStatus& StatusBoard::Entry(const std::string& mailbox_id) {
  v1::MailboxStatus& status = statuses_[mailbox_id];
  if (status.mailbox().empty()) {
    status.set_mailbox("mailboxes/" + mailbox_id);
    status.set_state(v1::MailboxStatus::STATE_WAITING);
  }
  dirty_.insert(mailbox_id);
  return status;
}

void StatusBoard::PollStarted(const std::string& mailbox_id, absl::Time now) {
  std::lock_guard lock(mutex_);
  SetTime(Entry(mailbox_id).mutable_last_poll_time(), now);
}

void StatusBoard::PollSucceeded(const std::string& mailbox_id, absl::Time started, absl::Time next,
                                const std::string& notice) {
  std::lock_guard lock(mutex_);
  v1::MailboxStatus& status = Entry(mailbox_id);
  if (status.state() != v1::MailboxStatus::STATE_OK) SetTime(status.mutable_state_time(), absl::Now());
  status.set_state(v1::MailboxStatus::STATE_OK);
  status.clear_reason();
  status.clear_reason_text();
  status.set_failures(0);
  SetTime(status.mutable_last_success_time(), started);
  SetTime(status.mutable_next_poll_time(), next);
  // A notice stands until another one comes; that of actions until they are done.
  if (!notice.empty() || absl::StartsWith(status.notice(), kActionNotice)) status.set_notice(notice);
}

int StatusBoard::PollFailed(const std::string& mailbox_id, const std::string& reason, const std::string& text,
                            absl::Time now) {
  std::lock_guard lock(mutex_);
  v1::MailboxStatus& status = Entry(mailbox_id);
  if (status.state() != v1::MailboxStatus::STATE_FAILING || status.reason() != reason) {
    SetTime(status.mutable_state_time(), now);
  }
  status.set_state(v1::MailboxStatus::STATE_FAILING);
  status.set_reason(reason);
  status.set_reason_text(text);
  status.set_failures(status.failures() + 1);
  return status.failures();
}

void StatusBoard::SetNext(const std::string& mailbox_id, absl::Time next) {
  std::lock_guard lock(mutex_);
  SetTime(Entry(mailbox_id).mutable_next_poll_time(), next);
}

void StatusBoard::Forget(const std::string& mailbox_id) {
  std::lock_guard lock(mutex_);
  statuses_.erase(mailbox_id);
  dirty_.erase(mailbox_id);
}

void StatusBoard::ListingCompleted(const FolderKey& folder, int64_t reference_ms) {
  std::lock_guard lock(mutex_);
  references_[folder.mailbox.key + "\n" + folder.folder] = {folder, reference_ms};
}

async::Task<absl::Status> StatusBoard::Load() {
  std::map<std::string, v1::MailboxStatus> loaded;
  sql::Work work = [&loaded](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_ASSIGN_OR_RETURN(sql::Result rows, co_await tx.Execute("SELECT mailbox_id, status FROM mailbox_status"));
    for (const sql::Row& row : rows.rows) loaded[row.Text(0)].ParseFromString(row.Text(1));
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  std::lock_guard lock(mutex_);
  statuses_.merge(loaded);
  co_return absl::OkStatus();
}

// Apart, because the rows of cursors may be locked for long, by the commit of a worker that was stopped: what is known
// of the mailboxes does not wait for that.
async::Task<absl::Status> StatusBoard::Flush() {
  absl::Status written = co_await WriteStatuses();
  written.Update(co_await WriteReferences());
  co_return written;
}

async::Task<absl::Status> StatusBoard::WriteStatuses() {
  std::map<std::string, v1::MailboxStatus> changed;
  {
    std::lock_guard lock(mutex_);
    for (const std::string& id : dirty_) changed[id] = statuses_[id];
    dirty_.clear();
  }
  if (changed.empty()) co_return absl::OkStatus();
  sql::Work work = [&changed](sql::Transaction& tx) -> async::Task<absl::Status> {
    static const std::string kRead = ManyRows("SELECT mailbox_id, status FROM mailbox_status WHERE mailbox_id IN (",
                                              "#", ") ORDER BY mailbox_id FOR UPDATE");
    static const sql::RowInsert kInsert("INSERT INTO mailbox_status (mailbox_id, status) VALUES", 2,
                                        "ON CONFLICT (mailbox_id) DO UPDATE SET status = excluded.status");
    std::vector<std::vector<sql::Value>> ids;
    for (const auto& [id, status] : changed) ids.push_back({id});
    PS_CO_ASSIGN_OR_RETURN(std::vector<sql::Result> read, co_await tx.ExecuteAll(StatementsFor(kRead, ids)));
    std::map<std::string, v1::MailboxStatus> merged = changed;
    for (const sql::Result& result : read) {
      for (const sql::Row& row : result.rows) {
        v1::MailboxStatus other;
        if (!other.ParseFromString(row.Text(1))) continue;
        merged[row.Text(0)] = Together(changed.at(row.Text(0)), other);
      }
    }
    std::vector<std::vector<sql::Value>> rows;
    for (const auto& [id, status] : merged) rows.push_back({id, sql::Blob{status.SerializeAsString()}});
    std::vector<sql::Statement> statements;
    kInsert.Append(std::move(rows), statements);
    co_return (co_await tx.ExecuteAll(std::move(statements))).status();
  };
  absl::Status written = co_await database_.Write(work);
  if (!written.ok()) {
    std::lock_guard lock(mutex_);
    for (const auto& [id, status] : changed) dirty_.insert(id);
  }
  co_return written;
}

async::Task<absl::Status> StatusBoard::WriteReferences() {
  std::map<std::string, std::pair<FolderKey, int64_t>> references;
  {
    std::lock_guard lock(mutex_);
    references.swap(references_);
  }
  if (references.empty()) co_return absl::OkStatus();
  sql::Work work = [&references](sql::Transaction& tx) -> async::Task<absl::Status> {
    // Both engines call the columns of VALUES column1 and so on.
    static const std::string kUpdate = ManyRows(
        "UPDATE folder_cursor SET reference_time = later.column4 FROM (VALUES",
        "(CAST(# AS text), CAST(# AS bigint), CAST(# AS text), CAST(# AS bigint))",
        ") AS later WHERE mailbox_key = later.column1 AND generation = later.column2 AND folder = later.column3 AND "
        "reference_time < later.column4 AND reference_time > 0");
    std::vector<std::vector<sql::Value>> rows;
    for (const auto& [key, reference] : references) {
      const auto& [folder, reference_ms] = reference;
      rows.push_back({folder.mailbox.key, folder.generation, folder.folder, reference_ms});
    }
    std::vector<sql::Statement> statements = StatementsFor(kUpdate, rows);
    co_return (co_await tx.ExecuteAll(std::move(statements))).status();
  };
  absl::Status written = co_await database_.Write(work);
  if (!written.ok()) {
    std::lock_guard lock(mutex_);
    references_.merge(references);  // what came meanwhile is newer, and stays
  }
  co_return written;
}

async::Task<void> StatusBoard::FlushLoop() {
  while (true) {
    absl::Status slept = co_await async::Sleep(kFlushInterval);
    if (absl::Status s = co_await Flush(); !s.ok()) {
      observe::Log(observe::Level::kWarning, "status.flush_failed", {{"error", std::string(s.message())}});
    }
    if (!slept.ok()) co_return;
  }
}

async::Task<absl::StatusOr<v1::MailboxStatus>> StatusBoard::Get(const config::v1::Mailbox& mailbox) {
  const MailboxKey key = MailboxKeyOf(mailbox);
  v1::MailboxStatus own;
  {
    std::lock_guard lock(mutex_);
    if (auto it = statuses_.find(key.id); it != statuses_.end()) own = it->second;
  }
  v1::MailboxStatus out;
  sql::Work work = [&out, &own, &key](sql::Transaction& tx) -> async::Task<absl::Status> {
    out = own;
    std::vector<sql::Statement> statements{
        {"SELECT status FROM mailbox_status WHERE mailbox_id = $1", {key.id}},
        {"SELECT state, COUNT(*) FROM message WHERE mailbox_key = $1 GROUP BY state", {key.key}}};
    PS_CO_ASSIGN_OR_RETURN(std::vector<sql::Result> read, co_await tx.ExecuteAll(std::move(statements)));
    v1::MailboxStatus written;
    if (!read[0].rows.empty() && written.ParseFromString(read[0].rows[0].Text(0))) out = Together(own, written);
    for (const sql::Row& row : read[1].rows) {
      if (row.Text(0) == "pending") out.set_pending(row.Int(1));
      if (row.Text(0) == "published") out.set_published(row.Int(1));
      if (row.Text(0) == "quarantined") out.set_quarantined(row.Int(1));
    }
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  out.set_mailbox(mailbox.name());
  if (out.state() == v1::MailboxStatus::STATE_UNSPECIFIED) out.set_state(v1::MailboxStatus::STATE_WAITING);
  if (!mailbox.enabled()) {
    out.set_state(v1::MailboxStatus::STATE_DISABLED);
    out.clear_next_poll_time();
    out.clear_reason();
    out.clear_reason_text();
  }
  co_return out;
}

}  // namespace poststelle::fetcher
