// FetchService over gRPC: translates, nothing else.
#pragma once

#include "libs/rpc/gate.h"
#include "poststelle/fetcher/v1/fetch_service.grpc.pb.h"
#include "services/fetcher/mailbox_catalog.h"
#include "services/fetcher/status_board.h"

namespace poststelle::fetcher {

class FetchService : public v1::FetchService::CallbackService {
 public:
  FetchService(const rpc::Gate& gate, MailboxCatalog& catalog, StatusBoard& board, const FeedInfo& feed)
      : gate_(gate), catalog_(catalog), board_(board), feed_(feed) {}

  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context, const v1::GetStatusRequest* request,
                                      v1::GetStatusResponse* response) override;
  grpc::ServerUnaryReactor* ListStatuses(grpc::CallbackServerContext* context, const v1::ListStatusesRequest* request,
                                         v1::ListStatusesResponse* response) override;

 private:
  async::Task<grpc::Status> Get(const v1::GetStatusRequest& request, v1::GetStatusResponse& response);
  async::Task<grpc::Status> List(const v1::ListStatusesRequest& request, v1::ListStatusesResponse& response);
  const rpc::Gate& gate_;
  MailboxCatalog& catalog_;
  StatusBoard& board_;
  const FeedInfo& feed_;
};

}  // namespace poststelle::fetcher
