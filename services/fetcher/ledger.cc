#include "services/fetcher/ledger.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "libs/base/ids.h"
#include "libs/base/status_macros.h"
#include "libs/base/sv.h"

namespace poststelle::fetcher {
namespace {

constexpr int kPartitions = 64;

using Params = std::vector<sql::Value>;

Params Key(const FolderKey& f) { return {f.mailbox.key, f.generation, f.folder}; }

Params Key(const FolderKey& f, uint32_t uid_validity) {
  Params p = Key(f);
  p.emplace_back(int64_t{uid_validity});
  return p;
}

Params Key(const FolderKey& f, uint32_t uid_validity, uint32_t uid) {
  Params p = Key(f, uid_validity);
  p.emplace_back(int64_t{uid});
  return p;
}

std::string_view StateName(Decision::Kind kind) {
  switch (kind) {
    case Decision::Kind::kPending:
      return "pending";
    case Decision::Kind::kPassedOver:
      return "passed_over";
    case Decision::Kind::kAsRead:
      return "as_read";
    case Decision::Kind::kRecognised:
      return "recognised";
  }
  return "pending";
}

std::string_view RuleName(Decision::Rule rule) {
  switch (rule) {
    case Decision::Rule::kNone:
      return "";
    case Decision::Rule::kDeleted:
      return "deleted";
    case Decision::Rule::kAge:
      return "age";
    case Decision::Rule::kRead:
      return "read";
  }
  return "";
}

OpenRow ToOpenRow(const sql::Row& row) {
  OpenRow out;
  out.uid = static_cast<uint32_t>(row.Int(0));
  out.size = static_cast<uint64_t>(row.Int(1));
  out.internal_date = row.Int(2);
  out.historical = row.Int(3) != 0;
  return out;
}

std::vector<OpenRow> ToOpenRows(const sql::Result& result) {
  std::vector<OpenRow> out;
  out.reserve(result.rows.size());
  for (const sql::Row& row : result.rows) out.push_back(ToOpenRow(row));
  return out;
}

}  // namespace

int64_t NowMs() { return absl::ToUnixMillis(absl::Now()); }

std::string MessageIdOf(const FolderKey& f, uint32_t uid_validity, uint32_t uid) {
  std::string identity = absl::StrCat(f.mailbox.key, "\n", f.generation, "\n", f.folder, "\n", uid_validity, "\n", uid);
  return DerivedId("message", identity);
}

async::Task<absl::StatusOr<FeedInfo>> EnsureFeed(sql::Database& database) {
  FeedInfo info;
  std::string epoch = RandomId();
  sql::Work work = [&info, &epoch](sql::Transaction& tx) -> async::Task<absl::Status> {
    Params insert{epoch, int64_t{kPartitions}};
    PS_CO_RETURN_IF_ERROR(
        (co_await tx.Execute("INSERT INTO feed (id, epoch, partitions) VALUES (1, $1, $2) ON CONFLICT DO NOTHING",
                             std::move(insert)))
            .status());
    PS_CO_ASSIGN_OR_RETURN(sql::Result feed, co_await tx.Execute("SELECT epoch, partitions FROM feed WHERE id = 1"));
    info.epoch = feed.rows[0].Text(0);
    info.partitions = static_cast<int>(feed.rows[0].Int(1));
    std::vector<sql::Statement> heads;
    for (int i = 0; i < info.partitions; ++i) {
      heads.push_back(
          {"INSERT INTO partition_head (partition, last_offset) VALUES ($1, 0) ON CONFLICT DO NOTHING", {int64_t{i}}});
    }
    co_return (co_await tx.ExecuteAll(std::move(heads))).status();
  };
  PS_CO_RETURN_IF_ERROR(co_await database.Write(work));
  co_return info;
}

async::Task<absl::StatusOr<std::vector<int64_t>>> ReadFences(sql::Transaction& tx,
                                                             const std::vector<std::string>& mailbox_keys) {
  std::vector<sql::Statement> statements;
  statements.reserve(mailbox_keys.size());
  for (const std::string& key : mailbox_keys) {
    statements.push_back({"SELECT fence FROM mailbox_fence WHERE mailbox_key = $1", {key}});
  }
  PS_CO_ASSIGN_OR_RETURN(std::vector<sql::Result> rows, co_await tx.ExecuteAll(std::move(statements)));
  std::vector<int64_t> fences;
  fences.reserve(rows.size());
  for (const sql::Result& row : rows) fences.push_back(row.rows.empty() ? 0 : row.rows[0].Int(0));
  co_return fences;
}

async::Task<absl::StatusOr<std::optional<Cursor>>> ReadCursor(sql::Transaction& tx, const FolderKey& folder) {
  PS_CO_ASSIGN_OR_RETURN(
      sql::Result result,
      co_await tx.Execute("SELECT uid_validity, watermark, highest_modseq, reference_time, enable_generation, "
                          "decided_max_age, decided_also_read FROM folder_cursor WHERE mailbox_key = $1 AND generation "
                          "= $2 AND folder = $3",
                          Key(folder)));
  if (result.rows.empty()) co_return std::nullopt;
  const sql::Row& row = result.rows[0];
  Cursor cursor;
  cursor.uid_validity = static_cast<uint32_t>(row.Int(0));
  cursor.watermark = static_cast<uint32_t>(row.Int(1));
  cursor.highest_modseq = static_cast<uint64_t>(row.Int(2));
  cursor.reference_ms = row.Int(3);
  cursor.enable_generation = row.Int(4);
  cursor.max_age_s = row.Int(5);
  cursor.also_read = row.Int(6) != 0;
  co_return cursor;
}

async::Task<absl::StatusOr<std::vector<PendingMessage>>> ReadPending(sql::Transaction& tx, const FolderKey& folder,
                                                                     uint32_t uid_validity, bool new_only, int limit,
                                                                     std::string holder) {
  Params params = Key(folder, uid_validity);
  params.emplace_back(int64_t{limit});
  params.emplace_back(int64_t{new_only ? 0 : 1});
  PS_CO_ASSIGN_OR_RETURN(
      sql::Result result,
      co_await tx.Execute(
          "SELECT uid, size, internal_date, historical, attempts, message_id, attempt_holder FROM message "
          "WHERE mailbox_key = $1 AND generation = $2 AND folder = $3 AND uid_validity = $4 "
          "AND state = 'pending' AND historical <= $6 "
          "ORDER BY historical, CASE WHEN historical = 1 THEN -uid ELSE uid END LIMIT $5",
          std::move(params)));
  std::vector<PendingMessage> out;
  out.reserve(result.rows.size());
  for (const sql::Row& row : result.rows) {
    PendingMessage m;
    m.uid = static_cast<uint32_t>(row.Int(0));
    m.size = static_cast<uint64_t>(row.Int(1));
    m.internal_date = row.Int(2);
    m.historical = row.Int(3) != 0;
    m.counted = !holder.empty() && row.Text(6) == holder;
    m.attempts = static_cast<int>(row.Int(4)) - (m.counted ? 1 : 0);
    m.message_id = row.Text(5);
    out.push_back(std::move(m));
  }
  co_return out;
}

async::Task<absl::StatusOr<std::vector<OpenRow>>> ReadAsRead(sql::Transaction& tx, const FolderKey& folder,
                                                             uint32_t uid_validity) {
  PS_CO_ASSIGN_OR_RETURN(
      sql::Result result,
      co_await tx.Execute("SELECT uid, size, internal_date, historical FROM message WHERE mailbox_key = $1 AND "
                          "generation = $2 AND folder = $3 AND uid_validity = $4 AND state = 'as_read' ORDER BY uid",
                          Key(folder, uid_validity)));
  co_return ToOpenRows(result);
}

async::Task<absl::StatusOr<std::vector<uint32_t>>> ReadSettled(sql::Transaction& tx, const FolderKey& folder,
                                                               uint32_t uid_validity, uint32_t first, uint32_t last) {
  Params params = Key(folder, uid_validity, first);
  params.emplace_back(int64_t{last});
  PS_CO_ASSIGN_OR_RETURN(
      sql::Result result,
      co_await tx.Execute("SELECT uid FROM message WHERE mailbox_key = $1 AND generation = $2 AND folder = $3 AND "
                          "uid_validity = $4 AND uid >= $5 AND uid <= $6 AND state || '' NOT IN ('pending', 'as_read', "
                          "'passed_over')",
                          std::move(params)));
  std::vector<uint32_t> out;
  out.reserve(result.rows.size());
  for (const sql::Row& row : result.rows) out.push_back(static_cast<uint32_t>(row.Int(0)));
  co_return out;
}

async::Task<absl::StatusOr<bool>> HasOlderIdentities(sql::Transaction& tx, const FolderKey& folder,
                                                     uint32_t uid_validity) {
  PS_CO_ASSIGN_OR_RETURN(
      sql::Result result,
      co_await tx.Execute(
          "SELECT 1 FROM message WHERE mailbox_key = $1 AND folder = $3 AND superseded = 0 AND "
          "(anchor IS NOT NULL OR state = 'pending') AND (generation <> $2 OR uid_validity <> $4) LIMIT 1",
          Key(folder, uid_validity)));
  co_return !result.rows.empty();
}

async::Task<absl::StatusOr<std::optional<AnchorMatch>>> MatchAnchor(sql::Transaction& tx, const FolderKey& folder,
                                                                    uint32_t uid_validity, const std::string& anchor,
                                                                    const std::vector<std::string>& already_used) {
  Params params = Key(folder, uid_validity);
  params.emplace_back(sql::Blob{anchor});
  PS_CO_ASSIGN_OR_RETURN(
      sql::Result result,
      co_await tx.Execute("SELECT message_id, ticket_id FROM message WHERE mailbox_key = $1 AND folder = $3 AND "
                          "anchor = $5 AND superseded = 0 AND (generation <> $2 OR uid_validity <> $4) "
                          "ORDER BY message_id",
                          std::move(params)));
  for (const sql::Row& row : result.rows) {
    if (std::find(already_used.begin(), already_used.end(), row.Text(0)) != already_used.end()) continue;
    AnchorMatch match;
    match.message_id = row.Text(0);
    if (!row.IsNull(1)) match.ticket_id = row.Text(1);
    co_return match;
  }
  co_return std::nullopt;
}

async::Task<absl::StatusOr<std::vector<OpenRow>>> ReadStalePending(sql::Transaction& tx, const FolderKey& folder,
                                                                   uint32_t uid_validity) {
  PS_CO_ASSIGN_OR_RETURN(
      sql::Result result,
      co_await tx.Execute(
          "SELECT uid, size, internal_date, historical FROM message WHERE mailbox_key = $1 AND "
          "folder = $3 AND state = 'pending' AND (generation < $2 OR (generation = $2 AND uid_validity <> $4))",
          Key(folder, uid_validity)));
  co_return ToOpenRows(result);
}

async::Task<absl::StatusOr<std::vector<LeftFolder>>> ReadLeftFolders(sql::Transaction& tx,
                                                                     const std::vector<FolderKey>& present) {
  // Not of a later generation: then it is we who know an old configuration.
  Params params{present.front().mailbox.key, present.front().generation};
  PS_CO_ASSIGN_OR_RETURN(
      sql::Result result,
      co_await tx.Execute("SELECT DISTINCT folder, generation, uid_validity FROM message WHERE mailbox_key = $1 AND "
                          "state IN ('pending', 'as_read') AND generation <= $2 ORDER BY folder, "
                          "generation, uid_validity",
                          std::move(params)));
  std::vector<LeftFolder> out;
  for (const sql::Row& row : result.rows) {
    LeftFolder left;
    left.key = present.front();
    left.key.folder = row.Text(0);
    left.key.generation = row.Int(1);
    left.uid_validity = static_cast<uint32_t>(row.Int(2));
    auto named = [&left](const FolderKey& k) { return k.folder == left.key.folder; };
    if (std::any_of(present.begin(), present.end(), named)) continue;
    out.push_back(std::move(left));
  }
  co_return out;
}

async::Task<absl::Status> WriteCursor(sql::Transaction& tx, const FolderKey& folder, Cursor cursor) {
  Params params = Key(folder);
  params.emplace_back(int64_t{cursor.uid_validity});
  params.emplace_back(int64_t{cursor.watermark});
  params.emplace_back(static_cast<int64_t>(cursor.highest_modseq));
  params.emplace_back(cursor.reference_ms);
  params.emplace_back(cursor.enable_generation);
  params.emplace_back(cursor.max_age_s);
  params.emplace_back(int64_t{cursor.also_read});
  co_return (co_await tx.Execute(
                 "INSERT INTO folder_cursor (mailbox_key, generation, folder, uid_validity, watermark, highest_modseq, "
                 "reference_time, enable_generation, decided_max_age, decided_also_read) VALUES ($1, $2, $3, $4, $5, "
                 "$6, $7, $8, $9, $10) "
                 "ON CONFLICT (mailbox_key, generation, folder) DO UPDATE SET uid_validity = excluded.uid_validity, "
                 "watermark = excluded.watermark, highest_modseq = excluded.highest_modseq, "
                 "reference_time = excluded.reference_time, enable_generation = excluded.enable_generation, "
                 "decided_max_age = excluded.decided_max_age, decided_also_read = excluded.decided_also_read",
                 std::move(params)))
      .status();
}

async::Task<absl::Status> InsertDecisions(sql::Transaction& tx, const FolderKey& folder, uint32_t uid_validity,
                                          const std::vector<Decision>& decisions, std::string holder) {
  const int64_t now = NowMs();
  std::vector<sql::Statement> statements;
  statements.reserve(decisions.size());
  for (const Decision& d : decisions) {
    Params params = Key(folder, uid_validity, d.uid);
    params.emplace_back(MessageIdOf(folder, uid_validity, d.uid));
    params.emplace_back(folder.mailbox.id);
    params.emplace_back(std::string(StateName(d.kind)));
    params.emplace_back(d.reason);
    params.emplace_back(int64_t{d.historical});
    params.emplace_back(static_cast<int64_t>(d.size));
    params.emplace_back(d.internal_date);
    params.emplace_back(now);
    params.emplace_back(d.kind == Decision::Kind::kPending ? int64_t{0} : now);
    params.emplace_back(std::string(RuleName(d.rule)));
    params.emplace_back(int64_t{d.attempted});
    params.emplace_back(d.attempted ? holder : std::string());
    statements.push_back(
        {"INSERT INTO message (mailbox_key, generation, folder, uid_validity, uid, message_id, mailbox_id, state, "
         "reason, historical, size, internal_date, attempts, attempt_holder, list_time, decide_time, rule) "
         "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $16, $17, $13, $14, $15) "
         "ON CONFLICT (mailbox_key, generation, folder, uid_validity, uid) DO UPDATE SET "
         "state = excluded.state, reason = excluded.reason, historical = excluded.historical, "
         "decide_time = excluded.decide_time, attempts = message.attempts + CASE WHEN message.attempt_holder = "
         "excluded.attempt_holder THEN 0 ELSE excluded.attempts END, attempt_holder = CASE WHEN excluded.attempts = 0 "
         "THEN message.attempt_holder ELSE excluded.attempt_holder END "
         "WHERE message.state = 'gone' AND excluded.state = 'pending'",
         std::move(params)});
    if (d.kind != Decision::Kind::kRecognised) continue;
    // The new UID takes over everything that later recognition needs; the old row has done its part.
    Params carry = Key(folder, uid_validity, d.uid);
    carry.emplace_back(d.recognised_as);
    statements.push_back(
        {"UPDATE message SET superseded = 0, (anchor, digest, internet_message_id, ticket_id, related_message_id) = "
         "(SELECT anchor, digest, internet_message_id, ticket_id, message_id FROM message WHERE message_id = $6) "
         "WHERE mailbox_key = $1 AND generation = $2 AND folder = $3 AND uid_validity = $4 AND uid = $5",
         std::move(carry)});
    statements.push_back({"UPDATE message SET superseded = 1 WHERE message_id = $1", {d.recognised_as}});
    // What is still to be done with it on the server is done with the new UID.
    Params moved = Key(folder, uid_validity, d.uid);
    moved.emplace_back(MessageIdOf(folder, uid_validity, d.uid));
    moved.emplace_back(d.recognised_as);
    statements.push_back(
        {"UPDATE after_import SET mailbox_key = $1, generation = $2, folder = $3, uid_validity = $4, "
         "uid = $5, message_id = $6 WHERE message_id = $7",
         std::move(moved)});
  }
  co_return (co_await tx.ExecuteAll(std::move(statements))).status();
}

async::Task<absl::Status> SettleAsRead(sql::Transaction& tx, const FolderKey& folder, uint32_t uid_validity,
                                       const std::vector<uint32_t>& unread, const std::vector<uint32_t>& too_old) {
  for (uint32_t uid : unread) {
    PS_CO_RETURN_IF_ERROR(
        (co_await tx.Execute(
             "UPDATE message SET state = 'pending', reason = '', decide_time = 0 WHERE mailbox_key = $1 "
             "AND generation = $2 AND folder = $3 AND uid_validity = $4 AND uid = $5 AND state || '' = "
             "'as_read'",
             Key(folder, uid_validity, uid)))
            .status());
  }
  for (uint32_t uid : too_old) {
    Params params = Key(folder, uid_validity, uid);
    params.emplace_back(NowMs());
    PS_CO_RETURN_IF_ERROR(
        (co_await tx.Execute(
             "UPDATE message SET state = 'passed_over', rule = 'read', reason = 'It was read when it was first listed "
             "and stayed so until it was too old.', decide_time = $6 WHERE mailbox_key = $1 AND "
             "generation = $2 AND folder = $3 AND uid_validity = $4 AND uid = $5 AND state || '' = 'as_read'",
             std::move(params)))
            .status());
  }
  co_return absl::OkStatus();
}

async::Task<absl::StatusOr<std::vector<PassedOver>>> ReadPassedOver(sql::Transaction& tx, const FolderKey& folder,
                                                                    uint32_t uid_validity, int64_t oldest) {
  Params params = Key(folder, uid_validity);
  params.emplace_back(oldest);
  PS_CO_ASSIGN_OR_RETURN(
      sql::Result result,
      co_await tx.Execute("SELECT uid, internal_date, state FROM message WHERE mailbox_key = $1 AND generation = $2 "
                          "AND folder = $3 AND uid_validity = $4 AND (state = 'as_read' OR (state = 'passed_over' AND "
                          "rule IN ('age', 'read') AND internal_date >= $5)) ORDER BY uid",
                          std::move(params)));
  std::vector<PassedOver> out;
  out.reserve(result.rows.size());
  for (const sql::Row& row : result.rows) {
    PassedOver passed;
    passed.uid = static_cast<uint32_t>(row.Int(0));
    passed.internal_date = row.Int(1);
    passed.as_read = row.Text(2) == "as_read";
    out.push_back(passed);
  }
  co_return out;
}

async::Task<absl::Status> Reconsider(sql::Transaction& tx, const FolderKey& folder, uint32_t uid_validity,
                                     const std::vector<uint32_t>& pending, const std::vector<uint32_t>& as_read) {
  std::vector<sql::Statement> statements;
  for (uint32_t uid : pending) {
    statements.push_back(
        {"UPDATE message SET state = 'pending', rule = '', reason = '', decide_time = 0, historical = "
         "1 WHERE mailbox_key = $1 AND generation = $2 AND folder = $3 AND uid_validity = $4 AND uid = "
         "$5 AND state || '' IN ('as_read', 'passed_over')",
         Key(folder, uid_validity, uid)});
  }
  for (uint32_t uid : as_read) {
    statements.push_back(
        {"UPDATE message SET state = 'as_read', rule = '', historical = 1, reason = 'It is young enough "
         "by now, but read, and read mail is not imported here.' WHERE mailbox_key = $1 AND generation "
         "= $2 AND folder = $3 AND uid_validity = $4 AND uid = $5 AND state || '' = 'passed_over'",
         Key(folder, uid_validity, uid)});
  }
  co_return (co_await tx.ExecuteAll(std::move(statements))).status();
}

async::Task<absl::Status> CloseStalePending(sql::Transaction& tx, const FolderKey& folder, uint32_t uid_validity) {
  Params params = Key(folder, uid_validity);
  params.emplace_back(NowMs());
  co_return (co_await tx.Execute(
                 "UPDATE message SET state = 'gone', decide_time = $5, reason = 'The folder was rebuilt or the "
                 "connection changed before it was fetched; its mail was listed again.' WHERE mailbox_key = $1 AND "
                 "folder = $3 AND state IN ('pending', 'as_read') AND (generation < $2 OR (generation = $2 AND "
                 "uid_validity <> $4))",
                 std::move(params)))
      .status();
}

async::Task<absl::Status> CloseLeftFolder(sql::Transaction& tx, const LeftFolder& left) {
  Params params = Key(left.key, left.uid_validity);
  params.emplace_back(NowMs());
  params.emplace_back(absl::StrCat("The mailbox no longer watches the folder ", left.key.folder, "."));
  co_return (co_await tx.Execute("UPDATE message SET state = CASE WHEN state = 'as_read' THEN 'passed_over' ELSE "
                                 "'gone' END, decide_time = $5, reason = $6 WHERE mailbox_key = $1 AND generation = $2 "
                                 "AND folder = $3 AND uid_validity = $4 AND state IN ('pending', 'as_read')",
                                 std::move(params)))
      .status();
}

async::Task<absl::Status> CountAttempts(sql::Transaction& tx, const std::set<std::string>& message_ids,
                                        std::string holder) {
  std::vector<sql::Statement> statements;
  statements.reserve(message_ids.size());
  for (const std::string& id : message_ids) {
    statements.push_back(
        {"UPDATE message SET attempts = attempts + CASE WHEN attempt_holder = $2 THEN 0 ELSE 1 END, "
         "attempt_holder = $2 WHERE message_id = $1 AND state || '' = 'pending'",
         {id, holder}});
  }
  co_return (co_await tx.ExecuteAll(std::move(statements))).status();
}

async::Task<absl::Status> UncountAttempts(sql::Transaction& tx, const std::set<std::string>& message_ids,
                                          std::string holder) {
  std::vector<sql::Statement> statements;
  statements.reserve(message_ids.size());
  for (const std::string& id : message_ids) {
    statements.push_back(
        {"UPDATE message SET attempts = attempts - 1, attempt_holder = CASE WHEN attempt_holder = $2 "
         "THEN '' ELSE attempt_holder END WHERE message_id = $1 AND state || '' = 'pending' AND attempts > 0",
         {id, holder}});
  }
  co_return (co_await tx.ExecuteAll(std::move(statements))).status();
}

async::Task<absl::Status> CloseAs(sql::Transaction& tx, const FolderKey& folder, uint32_t uid_validity, uint32_t uid,
                                  std::string_view state, const std::string& reason, const blob::EncodedBlob* raw) {
  if (raw != nullptr) PS_CO_RETURN_IF_ERROR(co_await blob::Put(tx, *raw));
  Params params = Key(folder, uid_validity, uid);
  params.emplace_back(std::string(state));
  params.emplace_back(reason);
  params.emplace_back(NowMs());
  params.emplace_back(raw != nullptr ? sql::Value(sql::Blob{raw->sha256}) : sql::Value());
  co_return (co_await tx.Execute("UPDATE message SET state = $6, reason = $7, decide_time = $8, raw_sha256 = $9 WHERE "
                                 "mailbox_key = $1 AND generation = $2 AND folder = $3 AND uid_validity = $4 AND uid = "
                                 "$5 AND state || '' = 'pending'",
                                 std::move(params)))
      .status();
}

async::Task<absl::Status> CorrectSize(sql::Transaction& tx, const FolderKey& folder, uint32_t uid_validity,
                                      uint32_t uid, uint64_t size) {
  Params params = Key(folder, uid_validity, uid);
  params.emplace_back(static_cast<int64_t>(size));
  co_return (co_await tx.Execute("UPDATE message SET size = $6 WHERE mailbox_key = $1 AND generation = $2 AND folder = "
                                 "$3 AND uid_validity = $4 AND uid = $5 AND state || '' = 'pending'",
                                 std::move(params)))
      .status();
}

}  // namespace poststelle::fetcher
