#include "services/fetcher/ticket_feed.h"

#include "absl/strings/str_cat.h"
#include "libs/base/page_budget.h"
#include "libs/base/status_macros.h"

namespace poststelle::fetcher {
namespace {

using Params = std::vector<sql::Value>;

// Bytes of a serialised event around its message: names, position, time.
constexpr size_t kEventOverhead = 512;

absl::Status TakenOver(const std::string& name) {
  return absl::AbortedError(absl::StrCat("subscription ", name, " was taken over by another subscriber"));
}

async::Task<absl::StatusOr<Offsets>> ReadHeads(sql::Transaction& tx) {
  PS_CO_ASSIGN_OR_RETURN(sql::Result rows, co_await tx.Execute("SELECT partition, last_offset FROM partition_head"));
  Offsets out;
  for (const sql::Row& row : rows.rows) out[static_cast<int>(row.Int(0))] = row.Int(1);
  co_return out;
}

}  // namespace

async::Task<absl::StatusOr<std::optional<TicketFeed::Grant>>> TicketFeed::Take(std::string name, std::string holder,
                                                                               bool from_now) {
  std::optional<Grant> grant;
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    grant.reset();
    const int64_t now = NowMs();
    const int64_t expires = now + absl::ToInt64Milliseconds(kLease);
    Params find{name};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result found,
        co_await tx.Execute("SELECT generation, holder, expire_time FROM subscription WHERE name = $1",
                            std::move(find)));
    Grant g;
    if (found.rows.empty()) {
      g.generation = 1;
      PS_CO_ASSIGN_OR_RETURN(Offsets heads, co_await ReadHeads(tx));
      Params create{name, g.generation, holder, expires};
      PS_CO_RETURN_IF_ERROR(
          (co_await tx.Execute("INSERT INTO subscription (name, generation, holder, expire_time) VALUES "
                               "($1, $2, $3, $4)",
                               std::move(create)))
              .status());
      for (int p = 0; p < info_.partitions; ++p) {
        Params cursor{name, int64_t{p}, from_now ? heads[p] : int64_t{0}};
        PS_CO_RETURN_IF_ERROR(
            (co_await tx.Execute("INSERT INTO subscription_cursor (name, feed_partition, acknowledged) "
                                 "VALUES ($1, $2, $3)",
                                 std::move(cursor)))
                .status());
      }
    } else {
      const bool held = !found.rows[0].Text(1).empty() && found.rows[0].Int(2) > now;
      if (held && found.rows[0].Text(1) != holder) co_return absl::OkStatus();
      g.generation = found.rows[0].Int(0) + 1;
      Params take{name, g.generation, holder, expires};
      PS_CO_RETURN_IF_ERROR(
          (co_await tx.Execute("UPDATE subscription SET generation = $2, holder = $3, expire_time = $4 "
                               "WHERE name = $1",
                               std::move(take)))
              .status());
    }
    Params cursors{name};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result rows,
        co_await tx.Execute("SELECT feed_partition, acknowledged FROM subscription_cursor WHERE name = "
                            "$1",
                            std::move(cursors)));
    for (const sql::Row& row : rows.rows) g.acknowledged[static_cast<int>(row.Int(0))] = row.Int(1);
    grant = std::move(g);
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Write(work));
  co_return grant;
}

async::Task<absl::Status> TicketFeed::Keep(std::string name, std::string holder, int64_t generation) {
  sql::Work work = [&](sql::Transaction& tx) -> async::Task<absl::Status> {
    Params params{name, generation, holder, NowMs() + absl::ToInt64Milliseconds(kLease)};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result kept,
        co_await tx.Execute("UPDATE subscription SET expire_time = $4 WHERE name = $1 AND generation = "
                            "$2 AND holder = $3",
                            std::move(params)));
    co_return kept.changed == 1 ? absl::OkStatus() : TakenOver(name);
  };
  co_return co_await database_.Write(work);
}

async::Task<absl::Status> TicketFeed::Leave(std::string name, int64_t generation) {
  sql::Work work = [&](sql::Transaction& tx) -> async::Task<absl::Status> {
    Params params{name, generation};
    co_return (
        co_await tx.Execute("UPDATE subscription SET holder = '', expire_time = 0 WHERE name = $1 AND generation = "
                            "$2",
                            std::move(params)))
        .status();
  };
  co_return co_await database_.Write(work);
}

async::Task<absl::Status> TicketFeed::Acknowledge(std::string name, int64_t generation, int partition, int64_t offset) {
  sql::Work work = [&](sql::Transaction& tx) -> async::Task<absl::Status> {
    Params check{name, int64_t{partition}};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result found,
        co_await tx.Execute(
            "SELECT s.generation, h.last_offset FROM subscription s JOIN partition_head h ON h.partition = "
            "$2 WHERE s.name = $1",
            std::move(check)));
    if (found.rows.empty()) co_return absl::InvalidArgumentError("acknowledge.position.partition names no partition");
    if (found.rows[0].Int(0) != generation) co_return TakenOver(name);
    if (offset < 1 || offset > found.rows[0].Int(1)) {
      co_return absl::InvalidArgumentError("acknowledge.position.offset names no event of this partition");
    }
    Params move{name, int64_t{partition}, offset};
    co_return (
        co_await tx.Execute("UPDATE subscription_cursor SET acknowledged = $3 WHERE name = $1 AND feed_partition = "
                            "$2 AND acknowledged < $3",
                            std::move(move)))
        .status();
  };
  co_return co_await database_.Write(work);
}

async::Task<absl::StatusOr<TicketFeed::Page>> TicketFeed::ReadPartition(int partition, int64_t after, int limit) {
  Page page;
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    Params head{int64_t{partition}};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result last,
        co_await tx.Execute("SELECT last_offset FROM partition_head WHERE partition = $1", std::move(head)));
    page.last_offset = last.rows.empty() ? 0 : last.rows[0].Int(0);
    // Sizes before contents: a thousand events may be gigabytes.
    Params sizes{int64_t{partition}, after, int64_t{limit}};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result lengths,
        co_await tx.Execute("SELECT LENGTH(c.content) FROM event e JOIN message_content c ON c.message_id = "
                            "e.message_id WHERE e.feed_partition = $1 AND e.feed_offset > $2 ORDER BY e.feed_offset "
                            "LIMIT $3",
                            std::move(sizes)));
    PageBudget budget;
    int64_t fitting = 0;
    for (const sql::Row& row : lengths.rows) {
      if (!budget.Take(static_cast<size_t>(row.Int(0)) + kEventOverhead)) break;
      ++fitting;
    }
    if (fitting == 0) co_return absl::OkStatus();
    Params params{int64_t{partition}, after, fitting};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result rows,
        co_await tx.Execute(
            "SELECT e.feed_offset, e.event_id, e.ticket_id, e.type, e.create_time, c.content FROM event e "
            "JOIN message_content c ON c.message_id = e.message_id WHERE e.feed_partition = $1 AND "
            "e.feed_offset > $2 ORDER BY e.feed_offset LIMIT $3",
            std::move(params)));
    for (const sql::Row& row : rows.rows) {
      v1::TicketEvent event;
      event.set_ticket("tickets/" + row.Text(2));
      event.set_name(event.ticket() + "/events/" + row.Text(1));
      event.set_type(static_cast<v1::TicketEvent::Type>(row.Int(3)));
      if (!event.mutable_message()->ParseFromString(row.Text(5))) {
        co_return absl::DataLossError(absl::StrCat("the stored content of event ", event.name(), " is damaged"));
      }
      event.mutable_position()->set_epoch(info_.epoch);
      event.mutable_position()->set_partition(partition);
      event.mutable_position()->set_offset(row.Int(0));
      event.mutable_create_time()->set_seconds(row.Int(4) / 1000);
      event.mutable_create_time()->set_nanos(static_cast<int32_t>(row.Int(4) % 1000 * 1000000));
      page.events.push_back(std::move(event));
    }
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return page;
}

async::Task<absl::StatusOr<Offsets>> TicketFeed::Heads() {
  Offsets heads;
  sql::Work work = [&heads](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_ASSIGN_OR_RETURN(heads, co_await ReadHeads(tx));
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return heads;
}

}  // namespace poststelle::fetcher
