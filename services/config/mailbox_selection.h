// What a list of mailboxes was asked for.
#pragma once

#include <string>
#include <vector>

#include "libs/rpc/status.h"
#include "poststelle/config/v1/mailbox_service.pb.h"
#include "services/config/mailbox_store.h"

namespace poststelle::config {

// The selection of `request`; what is wrong with it goes to `violations`.
MailboxSelection SelectionOf(const v1::ListMailboxesRequest& request, std::vector<rpc::Violation>& violations);

// The arguments that a page token is bound to, as text.
std::string ArgumentsOf(const v1::ListMailboxesRequest& request);

}  // namespace poststelle::config
