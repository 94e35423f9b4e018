// TicketFeedService over gRPC: the live feed, replay, tickets.
#pragma once

#include <atomic>

#include "libs/rpc/gate.h"
#include "poststelle/fetcher/v1/ticket_feed_service.grpc.pb.h"
#include "services/fetcher/feed_hub.h"
#include "services/fetcher/ledger_queries.h"
#include "services/fetcher/subscription_queries.h"
#include "services/fetcher/ticket_feed.h"

namespace poststelle::fetcher {

// Destroyed after the server has shut down: it waits for the streams to end.
class TicketFeedService : public v1::TicketFeedService::CallbackService {
 public:
  TicketFeedService(const rpc::Gate& gate, TicketFeed& feed, FeedHub& hub, LedgerQueries& queries,
                    SubscriptionQueries& subscriptions, const std::atomic<bool>& draining)
      : gate_(gate),
        feed_(feed),
        hub_(hub),
        queries_(queries),
        subscriptions_(subscriptions),
        draining_(draining),
        streams_(gate.executor()) {}
  ~TicketFeedService() override { streams_.JoinBlocking(); }

  grpc::ServerBidiReactor<v1::SubscribeRequest, v1::SubscribeResponse>* Subscribe(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* GetSubscription(grpc::CallbackServerContext* context,
                                            const v1::GetSubscriptionRequest* request,
                                            v1::GetSubscriptionResponse* response) override;
  grpc::ServerUnaryReactor* ListSubscriptions(grpc::CallbackServerContext* context,
                                              const v1::ListSubscriptionsRequest* request,
                                              v1::ListSubscriptionsResponse* response) override;
  grpc::ServerUnaryReactor* ListSetAsideEvents(grpc::CallbackServerContext* context,
                                               const v1::ListSetAsideEventsRequest* request,
                                               v1::ListSetAsideEventsResponse* response) override;
  grpc::ServerUnaryReactor* ListTicketEvents(grpc::CallbackServerContext* context,
                                             const v1::ListTicketEventsRequest* request,
                                             v1::ListTicketEventsResponse* response) override;
  grpc::ServerUnaryReactor* ListTickets(grpc::CallbackServerContext* context, const v1::ListTicketsRequest* request,
                                        v1::ListTicketsResponse* response) override;
  grpc::ServerUnaryReactor* GetTicket(grpc::CallbackServerContext* context, const v1::GetTicketRequest* request,
                                      v1::GetTicketResponse* response) override;

 private:
  async::Task<grpc::Status> GetOne(const v1::GetSubscriptionRequest& request, v1::GetSubscriptionResponse& response);
  async::Task<grpc::Status> ListAll(const v1::ListSubscriptionsRequest& request,
                                    v1::ListSubscriptionsResponse& response);
  async::Task<grpc::Status> ListAside(const v1::ListSetAsideEventsRequest& request,
                                      v1::ListSetAsideEventsResponse& response);
  async::Task<grpc::Status> ListEvents(const v1::ListTicketEventsRequest& request,
                                       v1::ListTicketEventsResponse& response);
  async::Task<grpc::Status> List(const v1::ListTicketsRequest& request, v1::ListTicketsResponse& response);
  async::Task<grpc::Status> Get(const v1::GetTicketRequest& request, v1::GetTicketResponse& response);
  const rpc::Gate& gate_;
  TicketFeed& feed_;
  FeedHub& hub_;
  LedgerQueries& queries_;
  SubscriptionQueries& subscriptions_;
  const std::atomic<bool>& draining_;
  async::TaskScope streams_;
};

}  // namespace poststelle::fetcher
