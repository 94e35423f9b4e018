// CredentialService over gRPC: passwords for the fetcher's identity only.
#pragma once

#include "libs/base/secret_string.h"
#include "libs/rpc/gate.h"
#include "libs/secrets/vault.h"
#include "poststelle/config/v1/credential_service.grpc.pb.h"
#include "services/config/mailbox_store.h"

namespace poststelle::config {

class CredentialService : public v1::CredentialService::CallbackService {
 public:
  CredentialService(const rpc::Gate& gate, MailboxStore& store, const secrets::Vault& vault, SecretString token)
      : gate_(gate), store_(store), vault_(vault), token_(std::move(token)) {}
  grpc::ServerUnaryReactor* GetCredentials(grpc::CallbackServerContext* context,
                                           const v1::GetCredentialsRequest* request,
                                           v1::GetCredentialsResponse* response) override;

 private:
  grpc::Status Authorize(const grpc::CallbackServerContext& context) const;
  async::Task<grpc::Status> Get(grpc::Status authorized, const v1::GetCredentialsRequest& request,
                                v1::GetCredentialsResponse& response);
  const rpc::Gate& gate_;
  MailboxStore& store_;
  const secrets::Vault& vault_;
  const SecretString token_;
};

}  // namespace poststelle::config
