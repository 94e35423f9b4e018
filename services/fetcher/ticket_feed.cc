#include "services/fetcher/ticket_feed.h"

#include "absl/strings/str_cat.h"
#include "libs/base/page_budget.h"
#include "libs/base/status_macros.h"

namespace poststelle::fetcher {

using Params = std::vector<sql::Value>;

// Bytes of a serialised event around its message: names, position, time.
constexpr size_t kEventOverhead = 512;

void Abridge(v1::TicketEvent& event, size_t max_bytes) {
  if (event.ByteSizeLong() <= max_bytes) return;
  event.set_abridged(true);
  event.mutable_message()->clear_text();
  event.mutable_message()->clear_html();
  event.mutable_message()->clear_attachments();
  if (event.ByteSizeLong() <= max_bytes) return;
  std::string name = event.message().name();
  event.clear_message();
  event.mutable_message()->set_name(std::move(name));
}

async::Task<absl::StatusOr<TicketFeed::Page>> TicketFeed::ReadPartition(int partition, int64_t after, int limit) {
  Page page;
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    page = Page();
    Params head{int64_t{partition}};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result last,
        co_await tx.Execute("SELECT last_offset FROM partition_head WHERE partition = $1", std::move(head)));
    page.last_offset = last.rows.empty() ? 0 : last.rows[0].Int(0);
    // Sizes before contents: a thousand events may be gigabytes.
    Params sizes{int64_t{partition}, after, int64_t{limit}};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result lengths,
        co_await tx.Execute("SELECT LENGTH(c.content) + COALESCE(LENGTH(e.effects), 0) FROM event e JOIN "
                            "message_content c ON c.message_id = "
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
            "SELECT e.feed_offset, e.event_id, e.ticket_id, e.type, e.create_time, c.content, e.effects FROM event e "
            "JOIN message_content c ON c.message_id = e.message_id WHERE e.feed_partition = $1 AND "
            "e.feed_offset > $2 ORDER BY e.feed_offset LIMIT $3",
            std::move(params)));
    size_t bytes = 0;
    for (const sql::Row& row : rows.rows) {
      v1::TicketEvent event;
      if (!row.IsNull(6) && !event.ParseFromString(row.Text(6))) {
        co_return absl::DataLossError(absl::StrCat("the stored effects of event ", row.Text(1), " are damaged"));
      }
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
      Abridge(event, kMaxEventBytes);
      bytes += event.ByteSizeLong();
      if (bytes > kMaxEventBytes && !page.events.empty()) break;
      page.events.push_back(std::move(event));
    }
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return page;
}

}  // namespace poststelle::fetcher
