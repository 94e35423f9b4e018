#include "services/config/stored_password.h"

#include "absl/strings/str_cat.h"
#include "libs/base/reason.h"
#include "libs/base/status_macros.h"
#include "services/config/mailbox_service.h"

namespace poststelle::config {

async::Task<absl::StatusOr<SecretString>> OpenPassword(MailboxStore& store, const secrets::Vault& vault, std::string id,
                                                       StoredMailbox& found) {
  if (found.sealed_password.empty()) {
    co_return WithReason(absl::FailedPreconditionError("the mailbox has no password"), "NO_SECRET");
  }
  absl::StatusOr<SecretString> password = vault.Open(found.sealed_password, PasswordRecord(id));
  if (absl::IsNotFound(password.status())) {
    // Its key may have been rotated away between the two: then another seal is stored by now.
    PS_CO_ASSIGN_OR_RETURN(found, co_await store.Get(id));
    password = vault.Open(found.sealed_password, PasswordRecord(id));
  }
  if (password.ok()) co_return *std::move(password);
  co_return WithReason(absl::FailedPreconditionError(
                           absl::StrCat("the password can't be decrypted: ", std::string(password.status().message()))),
                       "SECRET_UNREADABLE");
}

}  // namespace poststelle::config
