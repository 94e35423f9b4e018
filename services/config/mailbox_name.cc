#include "services/config/mailbox_name.h"

#include "absl/strings/match.h"
#include "services/config/mailbox_validator.h"

namespace poststelle::config {

std::string MailboxIdIn(const std::string& name) {
  const std::string id = absl::StartsWith(name, "mailboxes/") ? name.substr(10) : "";
  return IsMailboxId(id) ? id : "";
}

rpc::Violation WrongMailboxName(const std::string& field) {
  rpc::Violation violation;
  violation.field = field;
  violation.description = "must be mailboxes/{mailbox}, with 4 to 63 characters of a-z, 0-9 and hyphen";
  return violation;
}

}  // namespace poststelle::config
