// Resource names of mailboxes, as requests bring them.
#pragma once

#include <string>

#include "libs/rpc/status.h"

namespace poststelle::config {

// The id in "mailboxes/{mailbox}"; empty if `name` is no such name.
std::string MailboxIdIn(const std::string& name);

// That `field` does not hold such a name.
rpc::Violation WrongMailboxName(const std::string& field);

}  // namespace poststelle::config
