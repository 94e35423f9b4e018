// FetchService over gRPC: translates, nothing else.
#pragma once

#include "poststelle/fetcher/v1/fetch_service.grpc.pb.h"
#include "services/fetcher/mailbox_catalog.h"
#include "services/fetcher/status_board.h"

namespace poststelle::fetcher {

class FetchService : public v1::FetchService::CallbackService {
 public:
  FetchService(asio::any_io_executor executor, MailboxCatalog& catalog, StatusBoard& board, std::string page_key)
      : executor_(std::move(executor)), catalog_(catalog), board_(board), page_key_(std::move(page_key)) {}

  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context, const v1::GetStatusRequest* request,
                                      v1::GetStatusResponse* response) override;
  grpc::ServerUnaryReactor* ListStatuses(grpc::CallbackServerContext* context, const v1::ListStatusesRequest* request,
                                         v1::ListStatusesResponse* response) override;

 private:
  async::Task<grpc::Status> Get(const v1::GetStatusRequest& request, v1::GetStatusResponse& response);
  async::Task<grpc::Status> List(const v1::ListStatusesRequest& request, v1::ListStatusesResponse& response);
  const asio::any_io_executor executor_;
  MailboxCatalog& catalog_;
  StatusBoard& board_;
  const std::string page_key_;
};

}  // namespace poststelle::fetcher
