// MessageService over gRPC: messages, raw bytes, explanations.
#pragma once

#include "libs/rpc/gate.h"
#include "poststelle/fetcher/v1/message_service.grpc.pb.h"
#include "services/fetcher/fetch_run.h"
#include "services/fetcher/ledger_queries.h"
#include "services/fetcher/mailbox_catalog.h"

namespace poststelle::fetcher {

class MessageService : public v1::MessageService::CallbackService {
 public:
  MessageService(const rpc::Gate& gate, FetchContext& fetch, LedgerQueries& queries, MailboxCatalog& catalog)
      : gate_(gate), fetch_(fetch), queries_(queries), catalog_(catalog) {}

  grpc::ServerUnaryReactor* GetMessage(grpc::CallbackServerContext* context, const v1::GetMessageRequest* request,
                                       v1::GetMessageResponse* response) override;
  grpc::ServerWriteReactor<v1::DownloadRawResponse>* DownloadRaw(grpc::CallbackServerContext* context,
                                                                 const v1::DownloadRawRequest* request) override;
  grpc::ServerUnaryReactor* Explain(grpc::CallbackServerContext* context, const v1::ExplainRequest* request,
                                    v1::ExplainResponse* response) override;

 private:
  async::Task<grpc::Status> Get(const v1::GetMessageRequest& request, v1::GetMessageResponse& response);
  async::Task<grpc::Status> ExplainOne(const v1::ExplainRequest& request, v1::ExplainResponse& response);
  // Asks the server for mails that the ledger does not know by their Message-ID, and adds their outcomes.
  async::Task<absl::Status> AskServer(const config::v1::Mailbox& mailbox, const std::string& message_id,
                                      v1::ExplainResponse& response);
  async::Task<absl::Status> AskFolder(OpenMailbox& open, const FolderKey& folder, imap::FolderState state,
                                      const config::v1::Mailbox& mailbox, const std::string& message_id,
                                      v1::ExplainResponse& response);
  const rpc::Gate& gate_;
  FetchContext& fetch_;
  LedgerQueries& queries_;
  MailboxCatalog& catalog_;
};

}  // namespace poststelle::fetcher
