#include "services/fetcher/subscription_queries.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "libs/base/reason.h"
#include "libs/base/status_macros.h"
#include "services/fetcher/ledger_queries.h"

namespace poststelle::fetcher {
namespace {

using Params = std::vector<sql::Value>;

absl::Status NoSubscription(const std::string& name) {
  return WithReason(absl::NotFoundError(absl::StrCat("there is no subscription subscriptions/", name)),
                    "SUBSCRIPTION_NOT_FOUND");
}

async::Task<absl::StatusOr<bool>> Exists(sql::Transaction& tx, const std::string& name) {
  Params of{name};
  PS_CO_ASSIGN_OR_RETURN(sql::Result found,
                         co_await tx.Execute("SELECT 1 FROM subscription WHERE name = $1", std::move(of)));
  co_return !found.rows.empty();
}

}  // namespace

async::Task<absl::StatusOr<std::optional<v1::Subscription>>> SubscriptionQueries::Read(sql::Transaction& tx,
                                                                                       std::string name) {
  PS_CO_ASSIGN_OR_RETURN(const bool exists, co_await Exists(tx, name));
  if (!exists) co_return std::nullopt;
  v1::Subscription out;
  out.set_name("subscriptions/" + name);
  Params of{name};
  PS_CO_ASSIGN_OR_RETURN(
      sql::Result partitions,
      co_await tx.Execute(
          "SELECT c.feed_partition, c.holder, c.generation, c.acknowledged, h.last_offset, e.create_time FROM "
          "subscription_cursor c JOIN partition_head h ON h.partition = c.feed_partition LEFT JOIN event e ON "
          "e.feed_partition = c.feed_partition AND e.feed_offset = c.acknowledged + 1 WHERE c.name = $1 ORDER BY "
          "c.feed_partition",
          of));
  std::map<std::string, int> counts;
  int64_t oldest = 0;
  for (const sql::Row& row : partitions.rows) {
    v1::Subscription::Partition* p = out.add_partitions();
    p->set_partition(static_cast<int32_t>(row.Int(0)));
    p->set_member(row.Text(1));
    p->set_generation(row.Int(2));
    p->set_acknowledged_offset(row.Int(3));
    p->set_last_offset(row.Int(4));
    ++counts[row.Text(1)];
    out.set_lag(out.lag() + row.Int(4) - row.Int(3));
    if (row.IsNull(5)) continue;
    SetMs(p->mutable_oldest_unacknowledged_time(), row.Int(5));
    if (oldest == 0 || row.Int(5) < oldest) oldest = row.Int(5);
  }
  if (oldest != 0) SetMs(out.mutable_oldest_unacknowledged_time(), oldest);
  PS_CO_ASSIGN_OR_RETURN(sql::Result members,
                         co_await tx.Execute("SELECT member, join_time, expire_time FROM subscription_member WHERE "
                                             "name = $1 ORDER BY join_time, member",
                                             of));
  for (const sql::Row& row : members.rows) {
    v1::Subscription::Member* member = out.add_members();
    member->set_id(row.Text(0));
    SetMs(member->mutable_join_time(), row.Int(1));
    SetMs(member->mutable_expire_time(), row.Int(2));
    member->set_partition_count(counts[row.Text(0)]);
  }
  PS_CO_ASSIGN_OR_RETURN(sql::Result aside,
                         co_await tx.Execute("SELECT COUNT(*) FROM subscription_set_aside WHERE name = $1", of));
  out.set_set_aside_count(aside.rows[0].Int(0));
  co_return out;
}

async::Task<absl::StatusOr<v1::Subscription>> SubscriptionQueries::Get(std::string name) {
  std::optional<v1::Subscription> out;
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_ASSIGN_OR_RETURN(out, co_await Read(tx, name));
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  if (!out) co_return NoSubscription(name);
  co_return *std::move(out);
}

async::Task<absl::StatusOr<std::vector<v1::Subscription>>> SubscriptionQueries::List(std::string after, int limit) {
  std::vector<v1::Subscription> out;
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    out.clear();
    Params params{after, int64_t{limit}};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result names,
        co_await tx.Execute("SELECT name FROM subscription WHERE name > $1 ORDER BY name LIMIT $2", std::move(params)));
    for (const sql::Row& row : names.rows) {
      PS_CO_ASSIGN_OR_RETURN(std::optional<v1::Subscription> one, co_await Read(tx, row.Text(0)));
      if (one) out.push_back(*std::move(one));
    }
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return out;
}

async::Task<absl::StatusOr<std::vector<v1::SetAsideEvent>>> SubscriptionQueries::ListSetAside(std::string name,
                                                                                              int partition,
                                                                                              int64_t offset,
                                                                                              int limit) {
  std::vector<v1::SetAsideEvent> out;
  bool exists = false;
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    out.clear();
    PS_CO_ASSIGN_OR_RETURN(exists, co_await Exists(tx, name));
    Params params{name, int64_t{partition}, offset, int64_t{limit}};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result rows,
        co_await tx.Execute(
            "SELECT a.feed_partition, a.feed_offset, e.ticket_id, e.event_id, a.refusals, a.reason, a.set_aside_time "
            "FROM subscription_set_aside a JOIN event e ON e.feed_partition = a.feed_partition AND e.feed_offset = "
            "a.feed_offset WHERE a.name = $1 AND (a.feed_partition > $2 OR (a.feed_partition = $2 AND a.feed_offset > "
            "$3)) ORDER BY a.feed_partition, a.feed_offset LIMIT $4",
            std::move(params)));
    for (const sql::Row& row : rows.rows) {
      v1::SetAsideEvent event;
      event.mutable_position()->set_epoch(info_.epoch);
      event.mutable_position()->set_partition(static_cast<int32_t>(row.Int(0)));
      event.mutable_position()->set_offset(row.Int(1));
      event.set_event(absl::StrCat("tickets/", row.Text(2), "/events/", row.Text(3)));
      event.set_refusals(row.Int(4));
      event.set_reason(row.Text(5));
      SetMs(event.mutable_set_aside_time(), row.Int(6));
      out.push_back(std::move(event));
    }
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  if (!exists) co_return NoSubscription(name);
  co_return out;
}

}  // namespace poststelle::fetcher
