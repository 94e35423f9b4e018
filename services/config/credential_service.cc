#include "services/config/credential_service.h"

#include "absl/strings/match.h"
#include "libs/rpc/status.h"
#include "libs/rpc/unary.h"
#include "services/config/mailbox_service.h"
#include "services/config/mailbox_validator.h"

namespace poststelle::config {

grpc::ServerUnaryReactor* CredentialService::GetCredentials(grpc::CallbackServerContext* context,
                                                            const v1::GetCredentialsRequest* request,
                                                            v1::GetCredentialsResponse* response) {
  return rpc::Unary(context, gate_, *request, Get(*request, *response));
}

async::Task<grpc::Status> CredentialService::Get(const v1::GetCredentialsRequest& request,
                                                 v1::GetCredentialsResponse& response) {
  const std::string id = absl::StartsWith(request.name(), "mailboxes/") ? request.name().substr(10) : "";
  if (!IsMailboxId(id)) co_return rpc::InvalidFields({{"name", "must be mailboxes/{mailbox}"}});
  absl::StatusOr<StoredMailbox> found = co_await store_.Get(id);
  if (!found.ok()) co_return rpc::FromAbsl(found.status());
  if (found->sealed_password.empty()) {
    co_return rpc::Error(grpc::StatusCode::FAILED_PRECONDITION, "NO_SECRET", "the mailbox has no password");
  }
  absl::StatusOr<SecretString> password = vault_.Open(found->sealed_password, PasswordRecord(id));
  if (absl::IsNotFound(password.status())) {
    // Its key may have been rotated away between the two: then another seal is stored by now.
    found = co_await store_.Get(id);
    if (!found.ok()) co_return rpc::FromAbsl(found.status());
    password = vault_.Open(found->sealed_password, PasswordRecord(id));
  }
  if (!password.ok()) {
    co_return rpc::Error(grpc::StatusCode::FAILED_PRECONDITION, "SECRET_UNREADABLE",
                         "the password can't be decrypted: " + std::string(password.status().message()));
  }
  const v1::Mailbox& mailbox = found->mailbox;
  response.set_login_name(LoginName(mailbox));
  response.set_password(std::string(password->Reveal()));
  response.set_etag(mailbox.etag());
  co_return grpc::Status::OK;
}

}  // namespace poststelle::config
