#include "services/fetcher/subscriptions.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "libs/base/status_macros.h"
#include "services/fetcher/partition_shares.h"

namespace poststelle::fetcher {
namespace {

using Params = std::vector<sql::Value>;

// In subscription.holder while members share it. A fetcher of the version before holds a subscription alone, under an
// id of its own: it and the members keep each other out by this column, and fence each other by its generation.
constexpr std::string_view kShared = "shared";

async::Task<absl::Status> Run(sql::Transaction& tx, std::string_view statement, Params params) {
  co_return (co_await tx.Execute(statement, std::move(params))).status();
}

async::Task<absl::Status> CountVersion(sql::Transaction& tx, const std::string& name) {
  co_return co_await Run(tx, "UPDATE subscription SET version = version + 1 WHERE name = $1", Params{name});
}

// Everybody who writes rows of a subscription locks this one first, so that nobody waits in a circle.
async::Task<absl::StatusOr<sql::Result>> Lock(sql::Transaction& tx, const std::string& name) {
  Params params{name};
  co_return co_await tx.Execute("SELECT holder, expire_time FROM subscription WHERE name = $1 FOR UPDATE",
                                std::move(params));
}

// Milliseconds since 1970 by the database's clock: on PostgreSQL the server's, as of the statement and not of the
// transaction, which may have waited for a lock; SQLite's is this host's, and so is everybody's who opens the file.
constexpr std::string_view kPostgresNow = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";

struct PartitionRow {
  int64_t generation = 0;
  std::string holder;
  std::string wanted_by;
  bool operator==(const PartitionRow&) const = default;
};

}  // namespace

async::Task<absl::StatusOr<int64_t>> Subscriptions::Now(sql::Transaction& tx) {
  if (options_.now_ms) co_return options_.now_ms();
  if (database_.engine() == sql::Engine::kSqlite) co_return NowMs();
  PS_CO_ASSIGN_OR_RETURN(sql::Result now, co_await tx.Execute(kPostgresNow));
  co_return now.rows[0].Int(0);
}

async::Task<absl::Status> Subscriptions::SettleIn(sql::Transaction& tx, const std::string& name) {
  PS_CO_ASSIGN_OR_RETURN(sql::Result locked, co_await Lock(tx, name));
  PS_CO_ASSIGN_OR_RETURN(const int64_t now, co_await Now(tx));
  if (locked.rows.empty()) co_return absl::OkStatus();
  const std::string holder = locked.rows[0].Text(0);
  Params expired{name, now};
  PS_CO_RETURN_IF_ERROR(
      co_await Run(tx, "DELETE FROM subscription_member WHERE name = $1 AND expire_time <= $2", std::move(expired)));
  Params of{name};
  PS_CO_ASSIGN_OR_RETURN(sql::Result member_rows,
                         co_await tx.Execute("SELECT member, expire_time FROM subscription_member WHERE name = $1 "
                                             "ORDER BY join_time, member",
                                             of));
  std::vector<std::string> members;
  int64_t expires = 0;
  for (const sql::Row& row : member_rows.rows) {
    members.push_back(row.Text(0));
    expires = std::max(expires, row.Int(1));
  }
  const bool alone = !holder.empty() && holder != kShared && locked.rows[0].Int(1) > now;
  if (!alone) {
    const bool taken = holder != kShared && !members.empty();
    Params params{name, members.empty() ? std::string() : std::string(kShared), expires, int64_t{taken ? 1 : 0}};
    PS_CO_RETURN_IF_ERROR(co_await Run(tx,
                                       "UPDATE subscription SET holder = $2, expire_time = $3, generation = generation "
                                       "+ $4 WHERE name = $1",
                                       std::move(params)));
  }
  if (alone) members.clear();  // they wait

  PS_CO_ASSIGN_OR_RETURN(sql::Result rows,
                         co_await tx.Execute("SELECT feed_partition, generation, holder, wanted_by FROM "
                                             "subscription_cursor WHERE name = $1 ORDER BY feed_partition",
                                             of));
  auto live = [&members](const std::string& m) {
    return std::find(members.begin(), members.end(), m) != members.end();
  };
  std::vector<std::string> owners;
  for (const sql::Row& row : rows.rows) owners.push_back(live(row.Text(3)) ? row.Text(3) : row.Text(2));
  const std::vector<std::string> shares = ShareOut(members, owners);
  std::vector<sql::Statement> changes;
  for (size_t i = 0; i < shares.size(); ++i) {
    const sql::Row& row = rows.rows[i];
    const PartitionRow before{row.Int(1), row.Text(2), row.Text(3)};
    PartitionRow after{before.generation, live(before.holder) ? before.holder : "", ""};
    if (after.holder.empty() && !shares[i].empty()) {
      after.holder = shares[i];
      ++after.generation;
    } else if (after.holder != shares[i]) {
      after.wanted_by = shares[i];
    }
    if (after == before) continue;
    changes.push_back(
        {"UPDATE subscription_cursor SET generation = $3, holder = $4, wanted_by = $5 WHERE name = $1 AND "
         "feed_partition = $2",
         Params{name, row.Int(0), after.generation, after.holder, after.wanted_by}});
  }
  if (changes.empty()) co_return absl::OkStatus();
  PS_CO_RETURN_IF_ERROR((co_await tx.ExecuteAll(std::move(changes))).status());
  co_return co_await CountVersion(tx, name);
}

async::Task<absl::Status> Subscriptions::Settle(std::string name) {
  sql::Work work = [&, this](sql::Transaction& tx) { return SettleIn(tx, name); };
  co_return co_await database_.Write(work);
}

async::Task<absl::Status> Subscriptions::Join(std::string name, std::string member, bool from_now) {
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    Params create{name};
    PS_CO_ASSIGN_OR_RETURN(sql::Result created,
                           co_await tx.Execute("INSERT INTO subscription (name, generation, holder, expire_time) "
                                               "VALUES ($1, 0, '', 0) ON CONFLICT (name) DO NOTHING",
                                               std::move(create)));
    PS_CO_RETURN_IF_ERROR((co_await Lock(tx, name)).status());
    if (created.changed == 1) {
      Params cursors{name, int64_t{from_now ? 1 : 0}};
      PS_CO_RETURN_IF_ERROR(
          co_await Run(tx,
                       "INSERT INTO subscription_cursor (name, feed_partition, acknowledged) SELECT CAST($1 AS TEXT), "
                       "partition, last_offset * CAST($2 AS BIGINT) FROM partition_head",
                       std::move(cursors)));
    }
    PS_CO_ASSIGN_OR_RETURN(const int64_t now, co_await Now(tx));
    Params join{name, member, process_, now, now + absl::ToInt64Milliseconds(options_.lease)};
    PS_CO_RETURN_IF_ERROR(
        co_await Run(tx,
                     "INSERT INTO subscription_member (name, member, process, join_time, expire_time) VALUES ($1, $2, "
                     "$3, $4, $5) ON CONFLICT (name, member) DO UPDATE SET expire_time = excluded.expire_time",
                     std::move(join)));
    co_return co_await SettleIn(tx, name);
  };
  co_return co_await database_.Write(work);
}

async::Task<absl::Status> Subscriptions::Leave(std::string name, std::string member) {
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_RETURN_IF_ERROR((co_await Lock(tx, name)).status());
    Params leave{name, member};
    PS_CO_RETURN_IF_ERROR(
        co_await Run(tx, "DELETE FROM subscription_member WHERE name = $1 AND member = $2", std::move(leave)));
    co_return co_await SettleIn(tx, name);
  };
  co_return co_await database_.Write(work);
}

async::Task<absl::Status> Subscriptions::Release(std::string name, std::string member,
                                                 std::vector<std::pair<int, int64_t>> partitions) {
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_RETURN_IF_ERROR((co_await Lock(tx, name)).status());
    for (const auto& [partition, generation] : partitions) {
      // Only what is wanted: a share-out since may have left it where it is.
      Params params{name, int64_t{partition}, generation, member};
      PS_CO_RETURN_IF_ERROR(co_await Run(tx,
                                         "UPDATE subscription_cursor SET holder = '' WHERE name = $1 AND "
                                         "feed_partition = $2 AND generation = $3 AND holder = $4 AND wanted_by <> ''",
                                         std::move(params)));
    }
    co_return co_await SettleIn(tx, name);
  };
  co_return co_await database_.Write(work);
}

async::Task<absl::StatusOr<int64_t>> Subscriptions::Renew() {
  int64_t known = 0;
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    Params lock{process_};
    PS_CO_RETURN_IF_ERROR(co_await Run(tx,
                                       "SELECT name FROM subscription WHERE name IN (SELECT name FROM "
                                       "subscription_member WHERE process = $1) ORDER BY name FOR UPDATE",
                                       std::move(lock)));
    PS_CO_ASSIGN_OR_RETURN(const int64_t now, co_await Now(tx));
    const int64_t expires = now + absl::ToInt64Milliseconds(options_.lease);
    Params members{process_, expires};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result renewed,
        co_await tx.Execute("UPDATE subscription_member SET expire_time = $2 WHERE process = $1", members));
    known = renewed.changed;
    co_return co_await Run(tx,
                           "UPDATE subscription SET expire_time = $2 WHERE holder = 'shared' AND expire_time < $2 AND "
                           "name IN (SELECT name FROM subscription_member WHERE process = $1)",
                           std::move(members));
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Write(work));
  co_return known;
}

async::Task<absl::StatusOr<std::map<std::string, Subscriptions::Holding>>> Subscriptions::Holdings(std::string name) {
  std::map<std::string, Holding> out;
  sql::Work work = [&](sql::Transaction& tx) -> async::Task<absl::Status> {
    out.clear();
    Params of{name};
    PS_CO_ASSIGN_OR_RETURN(sql::Result rows,
                           co_await tx.Execute("SELECT feed_partition, generation, holder, wanted_by, acknowledged "
                                               "FROM subscription_cursor WHERE name = $1",
                                               std::move(of)));
    for (const sql::Row& row : rows.rows) {
      if (!row.Text(3).empty()) ++out[row.Text(3)].expected;
      if (row.Text(2).empty()) continue;
      Held& held = out[row.Text(2)].held[static_cast<int>(row.Int(0))];
      held.generation = row.Int(1);
      held.acknowledged = row.Int(4);
      held.wanted = !row.Text(3).empty();
    }
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return out;
}

async::Task<absl::Status> Subscriptions::ApplyOne(sql::Transaction& tx, Step& step, bool shared) {
  step.result = absl::OkStatus();
  const absl::Status stale = absl::AbortedError("the partition is not this subscriber's any more");
  if (!shared) {
    step.result = stale;
    co_return absl::OkStatus();
  }
  Params find{step.name, int64_t{step.partition}, step.generation, step.member};
  PS_CO_ASSIGN_OR_RETURN(
      sql::Result found,
      co_await tx.Execute(
          "SELECT c.acknowledged, c.refused_offset, c.refusals, h.last_offset FROM subscription_cursor c JOIN "
          "partition_head h ON h.partition = c.feed_partition WHERE c.name = $1 AND c.feed_partition = $2 AND "
          "c.generation = $3 AND c.holder = $4",
          std::move(find)));
  if (found.rows.empty()) {
    step.result = stale;
    co_return absl::OkStatus();
  }
  const sql::Row& row = found.rows[0];
  if (step.offset < 1 || step.offset > row.Int(3)) {
    step.result = absl::InvalidArgumentError("the offset names no event of this partition");
    co_return absl::OkStatus();
  }
  if (step.offset <= row.Int(0)) {  // a repeat, or too late to refuse it
    if (step.refusal) step.result = absl::AbortedError("the event was acknowledged before it was refused");
    co_return absl::OkStatus();
  }
  int64_t acknowledged = step.offset;
  if (step.refusal) {
    step.refusals = row.Int(1) == step.offset ? row.Int(2) + 1 : 1;
    if (step.refusals < step.refusal->max_refusals) {
      acknowledged = step.offset - 1;
    } else {
      PS_CO_ASSIGN_OR_RETURN(const int64_t now, co_await Now(tx));
      Params aside{step.name, int64_t{step.partition}, step.offset, step.refusals, step.refusal->reason, now};
      PS_CO_RETURN_IF_ERROR(
          co_await Run(tx,
                       "INSERT INTO subscription_set_aside (name, feed_partition, feed_offset, refusals, reason, "
                       "set_aside_time) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                       std::move(aside)));
    }
    Params refuse{step.name, int64_t{step.partition}, step.offset, step.refusals};
    PS_CO_RETURN_IF_ERROR(co_await Run(tx,
                                       "UPDATE subscription_cursor SET refused_offset = $3, refusals = $4, generation "
                                       "= generation + 1 WHERE name = $1 AND feed_partition = $2",
                                       std::move(refuse)));
    PS_CO_RETURN_IF_ERROR(co_await CountVersion(tx, step.name));
  }
  // The generation is checked once more where the cursor moves: nothing but this statement may be what protects it.
  Params move{step.name, int64_t{step.partition}, step.generation + (step.refusal ? 1 : 0), step.member, acknowledged};
  co_return co_await Run(tx,
                         "UPDATE subscription_cursor SET acknowledged = $5 WHERE name = $1 AND feed_partition = $2 AND "
                         "generation = $3 AND holder = $4 AND acknowledged < $5",
                         std::move(move));
}

async::Task<absl::Status> Subscriptions::Apply(std::vector<Step>& steps) {
  std::set<std::string> names;
  for (const Step& step : steps) names.insert(step.name);
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    std::set<std::string> shared;
    for (const std::string& name : names) {  // in the order of their names, like Renew
      PS_CO_ASSIGN_OR_RETURN(sql::Result locked, co_await Lock(tx, name));
      if (!locked.rows.empty() && locked.rows[0].Text(0) == kShared) shared.insert(name);
    }
    for (Step& step : steps) PS_CO_RETURN_IF_ERROR(co_await ApplyOne(tx, step, shared.contains(step.name)));
    co_return absl::OkStatus();
  };
  co_return co_await database_.Write(work);
}

async::Task<absl::StatusOr<Subscriptions::Pulse>> Subscriptions::Look() {
  Pulse pulse;
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    pulse = Pulse();
    const bool asks = !options_.now_ms && database_.engine() == sql::Engine::kPostgres;
    std::vector<sql::Statement> statements{
        {"SELECT 0, '', partition, last_offset FROM partition_head "
         "UNION ALL SELECT 1, name, 0, version FROM subscription "
         "UNION ALL SELECT 2, name, 0, MIN(expire_time) FROM subscription_member GROUP BY name "
         "UNION ALL SELECT 2, s.name, 0, s.expire_time FROM subscription s WHERE s.holder <> 'shared' AND "
         "EXISTS (SELECT 1 FROM subscription_member m WHERE m.name = s.name)",
         {}}};
    if (asks) statements.push_back({kPostgresNow, {}});  // beside it, no round trip of its own
    PS_CO_ASSIGN_OR_RETURN(std::vector<sql::Result> read, co_await tx.ExecuteAll(std::move(statements)));
    int64_t now = 0;
    if (asks) {
      now = read[1].rows[0].Int(0);
    } else {
      PS_CO_ASSIGN_OR_RETURN(now, co_await Now(tx));
    }
    for (const sql::Row& row : read[0].rows) {
      if (row.Int(0) == 0) pulse.heads[static_cast<int>(row.Int(2))] = row.Int(3);
      if (row.Int(0) == 1) pulse.versions[row.Text(1)] = row.Int(3);
      if (row.Int(0) == 2 && row.Int(3) <= now) pulse.overdue.insert(row.Text(1));
    }
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return pulse;
}

}  // namespace poststelle::fetcher
