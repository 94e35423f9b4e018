// What mailboxes refer to: other mailboxes, ticket statuses, labels. Kept in rows, so that nothing that is in use
// vanishes silently.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"
#include "libs/sql/database.h"
#include "poststelle/config/v1/mailbox.pb.h"

namespace poststelle::config {

inline constexpr std::string_view kReplyVia = "import_options.reply_via";
inline constexpr std::string_view kCounterpart = "counterpart";

// A field of a mailbox and the resource that it names.
struct Reference {
  std::string field;   // path within the mailbox
  std::string target;  // resource name
};
std::vector<Reference> ReferencesOf(const v1::Mailbox& mailbox);

// Checks that everything `mailbox` refers to exists and is of the right kind, and locks it until the transaction ends.
// kInvalidArgument (REFERENCE_NOT_FOUND) names every field that is wrong.
async::Task<absl::Status> CheckReferences(sql::Transaction& tx, const v1::Mailbox& mailbox);

// Mailboxes whose field `field` (empty: any) names `target`; ids, in order.
async::Task<absl::StatusOr<std::vector<std::string>>> UsersOf(sql::Transaction& tx, std::string target,
                                                              std::string_view field);

// Refuses with kFailedPrecondition (`reason`), naming `users` in the text and the metadata "users".
absl::Status InUse(const std::string& what, const std::vector<std::string>& users, const std::string& reason,
                   const std::string& remedy);

// Takes `target` out of `mailbox`, or puts `replacement` in its place where that is not empty.
void ReplaceReference(v1::Mailbox& mailbox, const std::string& target, const std::string& replacement);

}  // namespace poststelle::config
