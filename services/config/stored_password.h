// Passwords out of the store, in clear.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "libs/base/secret_string.h"
#include "libs/secrets/vault.h"
#include "services/config/mailbox_store.h"

namespace poststelle::config {

// The password of mailbox `id`, which `found` is; read anew where its key was rotated away meanwhile.
// kFailedPrecondition with reason NO_SECRET or SECRET_UNREADABLE.
async::Task<absl::StatusOr<SecretString>> OpenPassword(MailboxStore& store, const secrets::Vault& vault, std::string id,
                                                       StoredMailbox& found);

}  // namespace poststelle::config
