// TicketFeedService over gRPC: the live feed, replay, tickets.
#pragma once

#include <atomic>

#include "poststelle/fetcher/v1/ticket_feed_service.grpc.pb.h"
#include "services/fetcher/ledger_queries.h"
#include "services/fetcher/ticket_feed.h"

namespace poststelle::fetcher {

class TicketFeedService : public v1::TicketFeedService::CallbackService {
 public:
  TicketFeedService(asio::any_io_executor executor, TicketFeed& feed, LedgerQueries& queries,
                    const std::atomic<bool>& draining)
      : executor_(std::move(executor)), feed_(feed), queries_(queries), draining_(draining) {}

  grpc::ServerBidiReactor<v1::SubscribeRequest, v1::SubscribeResponse>* Subscribe(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* ListTicketEvents(grpc::CallbackServerContext* context,
                                             const v1::ListTicketEventsRequest* request,
                                             v1::ListTicketEventsResponse* response) override;
  grpc::ServerUnaryReactor* ListTickets(grpc::CallbackServerContext* context, const v1::ListTicketsRequest* request,
                                        v1::ListTicketsResponse* response) override;
  grpc::ServerUnaryReactor* GetTicket(grpc::CallbackServerContext* context, const v1::GetTicketRequest* request,
                                      v1::GetTicketResponse* response) override;

 private:
  async::Task<grpc::Status> ListEvents(const v1::ListTicketEventsRequest& request,
                                       v1::ListTicketEventsResponse& response);
  async::Task<grpc::Status> List(const v1::ListTicketsRequest& request, v1::ListTicketsResponse& response);
  async::Task<grpc::Status> Get(const v1::GetTicketRequest& request, v1::GetTicketResponse& response);
  const asio::any_io_executor executor_;
  TicketFeed& feed_;
  LedgerQueries& queries_;
  const std::atomic<bool>& draining_;
};

}  // namespace poststelle::fetcher
