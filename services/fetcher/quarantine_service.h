// QuarantineService over gRPC: translates, nothing else.
#pragma once

#include "libs/rpc/gate.h"
#include "poststelle/fetcher/v1/quarantine_service.grpc.pb.h"
#include "services/fetcher/ledger_queries.h"

namespace poststelle::fetcher {

class QuarantineService : public v1::QuarantineService::CallbackService {
 public:
  QuarantineService(const rpc::Gate& gate, LedgerQueries& queries, const FeedInfo& feed)
      : gate_(gate), queries_(queries), feed_(feed) {}

  grpc::ServerUnaryReactor* ListQuarantinedMessages(grpc::CallbackServerContext* context,
                                                    const v1::ListQuarantinedMessagesRequest* request,
                                                    v1::ListQuarantinedMessagesResponse* response) override;
  grpc::ServerUnaryReactor* GetQuarantinedMessage(grpc::CallbackServerContext* context,
                                                  const v1::GetQuarantinedMessageRequest* request,
                                                  v1::GetQuarantinedMessageResponse* response) override;

 private:
  async::Task<grpc::Status> List(const v1::ListQuarantinedMessagesRequest& request,
                                 v1::ListQuarantinedMessagesResponse& response);
  async::Task<grpc::Status> Get(const v1::GetQuarantinedMessageRequest& request,
                                v1::GetQuarantinedMessageResponse& response);
  const rpc::Gate& gate_;
  LedgerQueries& queries_;
  const FeedInfo& feed_;
};

}  // namespace poststelle::fetcher
