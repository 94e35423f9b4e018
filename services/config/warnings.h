// What is worth knowing about a mailbox's settings though it is no error. docs/errors.md lists the reasons.
#pragma once

#include <optional>

#include "poststelle/config/v1/mailbox.pb.h"
#include "services/config/provider_table.h"

namespace poststelle::config {

// Makes `mailbox.warnings` anew, for an answer.
void AddWarnings(v1::Mailbox& mailbox);

// What a person has to know who is going to sign in at this provider; nothing if the account's password does.
std::optional<v1::Warning> SignInWarning(const ProviderEntry& entry, Direction direction);

// That the domain's records could not be asked for, so that nothing better than a guess is there.
v1::Warning LookupFailedWarning();

}  // namespace poststelle::config
