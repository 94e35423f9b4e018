// Copies of mailboxes, and the counterpart of the other direction (SPEC A3).
#pragma once

#include <vector>

#include "libs/rpc/status.h"
#include "poststelle/config/v1/mailbox_service.pb.h"

namespace poststelle::config {

// The mailbox that `request` asks for, made from `source`, without name, id and secret; not validated yet. What is
// wrong with the request goes to `violations`.
v1::Mailbox DuplicateOf(const v1::Mailbox& source, const v1::DuplicateMailboxRequest& request,
                        std::vector<rpc::Violation>& violations);

}  // namespace poststelle::config
