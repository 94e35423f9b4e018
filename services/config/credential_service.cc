#include "services/config/credential_service.h"

#include "libs/rpc/status.h"
#include "libs/rpc/unary.h"
#include "services/config/mailbox_name.h"
#include "services/config/stored_password.h"

namespace poststelle::config {

grpc::ServerUnaryReactor* CredentialService::GetCredentials(grpc::CallbackServerContext* context,
                                                            const v1::GetCredentialsRequest* request,
                                                            v1::GetCredentialsResponse* response) {
  return rpc::Unary(context, gate_, *request, Get(*request, *response));
}

async::Task<grpc::Status> CredentialService::Get(const v1::GetCredentialsRequest& request,
                                                 v1::GetCredentialsResponse& response) {
  const std::string id = MailboxIdIn(request.name());
  if (id.empty()) co_return rpc::InvalidFields({WrongMailboxName("name")});
  absl::StatusOr<StoredMailbox> found = co_await store_.Get(id);
  if (!found.ok()) co_return rpc::FromAbsl(found.status());
  absl::StatusOr<SecretString> password = co_await OpenPassword(store_, vault_, id, *found);
  if (!password.ok()) co_return rpc::FromAbsl(password.status());
  const v1::Mailbox& mailbox = found->mailbox;
  response.set_login_name(LoginName(mailbox));
  response.set_password(std::string(password->Reveal()));
  response.set_etag(mailbox.etag());
  co_return grpc::Status::OK;
}

}  // namespace poststelle::config
