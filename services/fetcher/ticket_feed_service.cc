#include "services/fetcher/ticket_feed_service.h"

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "libs/base/page_budget.h"
#include "libs/rpc/page_token.h"
#include "libs/rpc/unary.h"
#include "services/fetcher/names.h"
#include "services/fetcher/subscriber.h"
#include "services/fetcher/time_page.h"

namespace poststelle::fetcher {

grpc::ServerBidiReactor<v1::SubscribeRequest, v1::SubscribeResponse>* TicketFeedService::Subscribe(
    grpc::CallbackServerContext* context) {
  auto stream = std::make_shared<SubscribeStream>(gate_.executor());
  return SubscribeStream::Run(stream, streams_, context, gate_,
                              ServeSubscriber(stream, streams_, feed_, hub_, draining_));
}

grpc::ServerUnaryReactor* TicketFeedService::GetSubscription(grpc::CallbackServerContext* context,
                                                             const v1::GetSubscriptionRequest* request,
                                                             v1::GetSubscriptionResponse* response) {
  return rpc::Unary(context, gate_, *request, GetOne(*request, *response));
}

grpc::ServerUnaryReactor* TicketFeedService::ListSubscriptions(grpc::CallbackServerContext* context,
                                                               const v1::ListSubscriptionsRequest* request,
                                                               v1::ListSubscriptionsResponse* response) {
  return rpc::Unary(context, gate_, *request, ListAll(*request, *response));
}

grpc::ServerUnaryReactor* TicketFeedService::ListSetAsideEvents(grpc::CallbackServerContext* context,
                                                                const v1::ListSetAsideEventsRequest* request,
                                                                v1::ListSetAsideEventsResponse* response) {
  return rpc::Unary(context, gate_, *request, ListAside(*request, *response));
}

grpc::ServerUnaryReactor* TicketFeedService::ListTicketEvents(grpc::CallbackServerContext* context,
                                                              const v1::ListTicketEventsRequest* request,
                                                              v1::ListTicketEventsResponse* response) {
  return rpc::Unary(context, gate_, *request, ListEvents(*request, *response));
}

grpc::ServerUnaryReactor* TicketFeedService::ListTickets(grpc::CallbackServerContext* context,
                                                         const v1::ListTicketsRequest* request,
                                                         v1::ListTicketsResponse* response) {
  return rpc::Unary(context, gate_, *request, List(*request, *response));
}

grpc::ServerUnaryReactor* TicketFeedService::GetTicket(grpc::CallbackServerContext* context,
                                                       const v1::GetTicketRequest* request,
                                                       v1::GetTicketResponse* response) {
  return rpc::Unary(context, gate_, *request, Get(*request, *response));
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

async::Task<grpc::Status> TicketFeedService::GetOne(const v1::GetSubscriptionRequest& request,
                                                    v1::GetSubscriptionResponse& response) {
  std::vector<rpc::Violation> violations;
  const std::string name = IdOf(request.name(), "subscriptions", "name", violations);
  if (!violations.empty()) co_return rpc::InvalidFields(violations);
  auto subscription = co_await subscriptions_.Get(name);
  if (!subscription.ok()) co_return rpc::FromAbsl(subscription.status());
  *response.mutable_subscription() = *std::move(subscription);
  co_return grpc::Status::OK;
}

async::Task<grpc::Status> TicketFeedService::ListAll(const v1::ListSubscriptionsRequest& request,
                                                     v1::ListSubscriptionsResponse& response) {
  std::vector<rpc::Violation> violations;
  const std::string& key = feed_.info().epoch;
  const Page page = PageOf(request.page_size(), request.page_token(), 50, key, "subscriptions", violations);
  if (!violations.empty()) co_return rpc::InvalidFields(violations);
  auto subscriptions = co_await subscriptions_.List(page.position, page.size + 1);
  if (!subscriptions.ok()) co_return rpc::FromAbsl(subscriptions.status());
  std::string last;
  for (v1::Subscription& subscription : *subscriptions) {
    if (response.subscriptions_size() == page.size) {
      response.set_next_page_token(rpc::MakePageToken(key, "subscriptions", last));
      break;
    }
    last = subscription.name().substr(subscription.name().rfind('/') + 1);
    *response.add_subscriptions() = std::move(subscription);
  }
  co_return grpc::Status::OK;
}

async::Task<grpc::Status> TicketFeedService::ListAside(const v1::ListSetAsideEventsRequest& request,
                                                       v1::ListSetAsideEventsResponse& response) {
  std::vector<rpc::Violation> violations;
  const std::string& key = feed_.info().epoch;
  const std::string arguments = "set aside\n" + request.subscription();
  const std::string name = IdOf(request.subscription(), "subscriptions", "subscription", violations);
  const Page page = PageOf(request.page_size(), request.page_token(), 50, key, arguments, violations);
  if (!violations.empty()) co_return rpc::InvalidFields(violations);
  int partition = -1;
  long long offset = 0;
  std::sscanf(page.position.c_str(), "%d %lld", &partition, &offset);
  auto events = co_await subscriptions_.ListSetAside(name, partition, offset, page.size + 1);
  if (!events.ok()) co_return rpc::FromAbsl(events.status());
  for (v1::SetAsideEvent& event : *events) {
    if (response.events_size() == page.size) {
      const v1::Position& last = response.events(page.size - 1).position();
      response.set_next_page_token(
          rpc::MakePageToken(key, arguments, absl::StrCat(last.partition(), " ", last.offset())));
      break;
    }
    *response.add_events() = std::move(event);
  }
  co_return grpc::Status::OK;
}

}  // namespace poststelle::fetcher
