#include "services/fetcher/ticket_feed_service.h"

#include "absl/strings/str_cat.h"
#include "libs/base/page_budget.h"
#include "libs/rpc/unary.h"
#include "services/fetcher/names.h"
#include "services/fetcher/subscriber.h"
#include "services/fetcher/time_page.h"

namespace poststelle::fetcher {

grpc::ServerBidiReactor<v1::SubscribeRequest, v1::SubscribeResponse>* TicketFeedService::Subscribe(
    grpc::CallbackServerContext*) {
  auto stream = std::make_shared<SubscribeStream>(executor_);
  return SubscribeStream::Run(stream, executor_, ServeSubscriber(stream, executor_, feed_, draining_));
}

grpc::ServerUnaryReactor* TicketFeedService::ListTicketEvents(grpc::CallbackServerContext* context,
                                                              const v1::ListTicketEventsRequest* request,
                                                              v1::ListTicketEventsResponse* response) {
  return rpc::Unary(context, executor_, ListEvents(*request, *response));
}

grpc::ServerUnaryReactor* TicketFeedService::ListTickets(grpc::CallbackServerContext* context,
                                                         const v1::ListTicketsRequest* request,
                                                         v1::ListTicketsResponse* response) {
  return rpc::Unary(context, executor_, List(*request, *response));
}

grpc::ServerUnaryReactor* TicketFeedService::GetTicket(grpc::CallbackServerContext* context,
                                                       const v1::GetTicketRequest* request,
                                                       v1::GetTicketResponse* response) {
  return rpc::Unary(context, executor_, Get(*request, *response));
}

async::Task<grpc::Status> TicketFeedService::ListEvents(const v1::ListTicketEventsRequest& request,
                                                        v1::ListTicketEventsResponse& response) {
  std::vector<rpc::Violation> violations;
  const Page page = PageOf(request.page_size(), "", 100, feed_.info().epoch, "events", violations);
  auto wrong = [&violations](const std::string& field, const std::string& description) {
    rpc::Violation violation;
    violation.field = field;
    violation.description = description;
    violations.push_back(std::move(violation));
  };
  const v1::Position& after = request.after();
  if (after.partition() < 0 || after.partition() >= feed_.info().partitions) {
    wrong("after.partition", absl::StrCat("must be 0 to ", feed_.info().partitions - 1));
  }
  if (after.offset() < 0) wrong("after.offset", "must not be negative");
  if (!violations.empty()) co_return rpc::InvalidFields(violations);
  if (!after.epoch().empty() && after.epoch() != feed_.info().epoch) {
    co_return rpc::Error(grpc::StatusCode::OUT_OF_RANGE, "EPOCH_CHANGED",
                         "the position is of another history of the feed; read from the start",
                         {{"epoch", feed_.info().epoch}});
  }
  auto read = co_await feed_.ReadPartition(after.partition(), after.offset(), page.size);
  if (!read.ok()) co_return rpc::FromAbsl(read.status());
  for (v1::TicketEvent& event : read->events) *response.add_events() = std::move(event);
  response.set_epoch(feed_.info().epoch);
  response.set_partitions(feed_.info().partitions);
  response.set_last_offset(read->last_offset);
  co_return grpc::Status::OK;
}

async::Task<grpc::Status> TicketFeedService::List(const v1::ListTicketsRequest& request,
                                                  v1::ListTicketsResponse& response) {
  std::vector<rpc::Violation> violations;
  const TimePage page(request, "tickets", feed_.info().epoch, violations);
  if (!violations.empty()) co_return rpc::InvalidFields(violations);
  auto tickets = co_await queries_.ListTickets(page.mailbox_id, page.after, page.size + 1);
  if (!tickets.ok()) co_return rpc::FromAbsl(tickets.status());
  PageBudget budget;
  for (v1::Ticket& ticket : *tickets) {
    if (response.tickets_size() == page.size || !budget.Take(ticket.ByteSizeLong())) {
      const v1::Ticket& last = response.tickets(response.tickets_size() - 1);
      response.set_next_page_token(page.TokenAfter(ToMs(last.create_time()), last.name()));
      break;
    }
    *response.add_tickets() = std::move(ticket);
  }
  co_return grpc::Status::OK;
}

async::Task<grpc::Status> TicketFeedService::Get(const v1::GetTicketRequest& request, v1::GetTicketResponse& response) {
  std::vector<rpc::Violation> violations;
  const std::string id = IdOf(request.name(), "tickets", "name", violations);
  if (!violations.empty()) co_return rpc::InvalidFields(violations);
  auto ticket = co_await queries_.GetTicket(id);
  if (!ticket.ok()) co_return rpc::FromAbsl(ticket.status());
  *response.mutable_ticket() = *std::move(ticket);
  co_return grpc::Status::OK;
}

}  // namespace poststelle::fetcher
