#include "services/fetcher/forget_mailbox.h"

#include "libs/base/status_macros.h"

namespace poststelle::fetcher {
namespace {

// Rows a transaction: others write in between.
constexpr int64_t kRowsAtOnce = 2000;
// Holder in mailbox_fence of a mailbox that is forgotten; no process start is called so.
constexpr char kForgotten[] = "forgotten";

}  // namespace

async::Task<absl::Status> ForgetMailbox(sql::Database& database, MailboxKey mailbox, bool id_in_use) {
  sql::Work head = [&mailbox, id_in_use](sql::Transaction& tx) -> async::Task<absl::Status> {
    std::vector<sql::Statement> statements{{"INSERT INTO mailbox_fence (mailbox_key, fence, holder) VALUES ($1, 1, $2) "
                                            "ON CONFLICT (mailbox_key) DO UPDATE "
                                            "SET fence = mailbox_fence.fence + 1, holder = excluded.holder",
                                            {mailbox.key, std::string(kForgotten)}},
                                           {"DELETE FROM folder_cursor WHERE mailbox_key = $1", {mailbox.key}},
                                           {"DELETE FROM after_import WHERE mailbox_key = $1", {mailbox.key}},
                                           {"DELETE FROM thread_reference WHERE mailbox_key = $1", {mailbox.key}}};
    if (!id_in_use) statements.push_back({"DELETE FROM mailbox_status WHERE mailbox_id = $1", {mailbox.id}});
    co_return (co_await tx.ExecuteAll(std::move(statements))).status();
  };
  PS_CO_RETURN_IF_ERROR(co_await database.Write(head));
  int64_t deleted = kRowsAtOnce;
  while (deleted == kRowsAtOnce) {
    sql::Work rows = [&mailbox, &deleted](sql::Transaction& tx) -> async::Task<absl::Status> {
      std::vector<sql::Value> params{mailbox.key, kRowsAtOnce};
      PS_CO_ASSIGN_OR_RETURN(
          sql::Result result,
          co_await tx.Execute(
              "DELETE FROM message WHERE message_id IN (SELECT message_id FROM message WHERE mailbox_key "
              "= $1 AND state NOT IN ('published', 'duplicate', 'quarantined') LIMIT $2)",
              std::move(params)));
      deleted = result.changed;
      co_return absl::OkStatus();
    };
    PS_CO_RETURN_IF_ERROR(co_await database.Write(rows));
  }
  co_return absl::OkStatus();
}

async::Task<absl::StatusOr<std::vector<MailboxKey>>> ReadKnownMailboxes(sql::Database& database) {
  std::vector<MailboxKey> out;
  sql::Work work = [&out](sql::Transaction& tx) -> async::Task<absl::Status> {
    std::vector<sql::Value> params{std::string(kForgotten)};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result rows,
        co_await tx.Execute("SELECT mailbox_key FROM mailbox_fence WHERE holder <> $1", std::move(params)));
    out.clear();
    for (const sql::Row& row : rows.rows) {
      MailboxKey key;
      key.key = row.Text(0);
      key.id = key.key.substr(0, key.key.rfind('@'));
      out.push_back(std::move(key));
    }
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database.Read(work));
  co_return out;
}

}  // namespace poststelle::fetcher
