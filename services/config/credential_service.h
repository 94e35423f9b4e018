// CredentialService over gRPC: passwords, for the role service alone (its proto says so).
#pragma once

#include "libs/rpc/gate.h"
#include "libs/secrets/vault.h"
#include "poststelle/config/v1/credential_service.grpc.pb.h"
#include "services/config/mailbox_store.h"

namespace poststelle::config {

class CredentialService : public v1::CredentialService::CallbackService {
 public:
  CredentialService(const rpc::Gate& gate, MailboxStore& store, const secrets::Vault& vault)
      : gate_(gate), store_(store), vault_(vault) {}
  grpc::ServerUnaryReactor* GetCredentials(grpc::CallbackServerContext* context,
                                           const v1::GetCredentialsRequest* request,
                                           v1::GetCredentialsResponse* response) override;

 private:
  async::Task<grpc::Status> Get(const v1::GetCredentialsRequest& request, v1::GetCredentialsResponse& response);
  const rpc::Gate& gate_;
  MailboxStore& store_;
  const secrets::Vault& vault_;
};

}  // namespace poststelle::config
