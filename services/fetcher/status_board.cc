#include "services/fetcher/status_board.h"

#include "libs/base/status_macros.h"
#include "libs/observe/log.h"

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
  if (!notice.empty()) status.set_notice(notice);
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
  std::vector<v1::MailboxStatus> changed;
  {
    std::lock_guard lock(mutex_);
    for (const std::string& id : dirty_) changed.push_back(statuses_[id]);
    dirty_.clear();
  }
  if (changed.empty()) co_return absl::OkStatus();
  sql::Work work = [&changed](sql::Transaction& tx) -> async::Task<absl::Status> {
    std::vector<sql::Statement> present;
    for (const v1::MailboxStatus& status : changed) {
      present.push_back(
          {"SELECT status FROM mailbox_status WHERE mailbox_id = $1 FOR UPDATE", {MailboxIdOf(status.mailbox())}});
    }
    PS_CO_ASSIGN_OR_RETURN(std::vector<sql::Result> rows, co_await tx.ExecuteAll(std::move(present)));
    std::vector<sql::Statement> statements;
    for (size_t i = 0; i < changed.size(); ++i) {
      v1::MailboxStatus status = changed[i];
      v1::MailboxStatus other;
      if (!rows[i].rows.empty() && other.ParseFromString(rows[i].rows[0].Text(0))) status = Together(status, other);
      statements.push_back(
          {"INSERT INTO mailbox_status (mailbox_id, status) VALUES ($1, $2) ON CONFLICT (mailbox_id) DO "
           "UPDATE SET status = excluded.status",
           {MailboxIdOf(status.mailbox()), sql::Blob{status.SerializeAsString()}}});
    }
    co_return (co_await tx.ExecuteAll(std::move(statements))).status();
  };
  absl::Status written = co_await database_.Write(work);
  if (!written.ok()) {
    std::lock_guard lock(mutex_);
    for (const v1::MailboxStatus& status : changed) dirty_.insert(MailboxIdOf(status.mailbox()));
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
    std::vector<sql::Statement> statements;
    for (const auto& [key, reference] : references) {
      const auto& [folder, reference_ms] = reference;
      statements.push_back(
          {"UPDATE folder_cursor SET reference_time = $4 WHERE mailbox_key = $1 AND generation = $2 AND "
           "folder = $3 AND reference_time < $4 AND reference_time > 0",
           {folder.mailbox.key, folder.generation, folder.folder, reference_ms}});
    }
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
  const FolderKey folder = FolderKeyOf(mailbox);
  v1::MailboxStatus own;
  {
    std::lock_guard lock(mutex_);
    if (auto it = statuses_.find(folder.mailbox.id); it != statuses_.end()) own = it->second;
  }
  v1::MailboxStatus out;
  sql::Work work = [&out, &own, &folder](sql::Transaction& tx) -> async::Task<absl::Status> {
    out = own;
    std::vector<sql::Statement> statements{
        {"SELECT status FROM mailbox_status WHERE mailbox_id = $1", {folder.mailbox.id}},
        {"SELECT state, COUNT(*) FROM message WHERE mailbox_key = $1 GROUP BY state", {folder.mailbox.key}}};
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
