// What becomes of the ledger of a mailbox that was deleted (SPEC §5.11).
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/fetcher/ledger.h"

namespace poststelle::fetcher {

// Forgets how far the mailbox was decided, what waits and what was passed over, what is still to be done on its server,
// and which Message-IDs it knew. What was published stays readable: tickets, events, and the rows and bytes of
// published, duplicate and quarantined messages. The fence moves, so that a worker that still polls it publishes
// nothing more. Made again under the same id, a mailbox is another one to the ledger (MailboxKey) and begins with a
// first listing. Its status is forgotten as well unless `id_in_use`. Repeatable.
async::Task<absl::Status> ForgetMailbox(sql::Database& database, MailboxKey mailbox, bool id_in_use);

// The mailboxes that the ledger knows and nobody has told it to forget. Read before config is asked which ones there
// are, it finds those that were deleted while no fetcher ran.
async::Task<absl::StatusOr<std::vector<MailboxKey>>> ReadKnownMailboxes(sql::Database& database);

}  // namespace poststelle::fetcher
