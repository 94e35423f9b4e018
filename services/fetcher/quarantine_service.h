// QuarantineService over gRPC: translates, nothing else.
#pragma once

#include "poststelle/fetcher/v1/quarantine_service.grpc.pb.h"
#include "services/fetcher/ledger_queries.h"

namespace poststelle::fetcher {

class QuarantineService : public v1::QuarantineService::CallbackService {
 public:
  QuarantineService(asio::any_io_executor executor, LedgerQueries& queries, std::string page_key)
      : executor_(std::move(executor)), queries_(queries), page_key_(std::move(page_key)) {}

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
  const asio::any_io_executor executor_;
  LedgerQueries& queries_;
  const std::string page_key_;
};

}  // namespace poststelle::fetcher
