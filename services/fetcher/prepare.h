// What has to be true of the ledger before anything rests on it.
#pragma once

#include "absl/status/status.h"
#include "services/fetcher/ledger.h"
#include "services/fetcher/status_board.h"

namespace poststelle::fetcher {

// Brings the schema up to date, reads the feed's constants into `feed`, and the states of mailboxes that earlier
// processes left into `board`, and which mailboxes the
// ledger knows into `known` (forget_mailbox.h). Repeatable; kUnavailable while the database is away.
async::Task<absl::Status> PrepareLedger(sql::Database& database, FeedInfo& feed, StatusBoard& board,
                                        std::vector<MailboxKey>& known);

}  // namespace poststelle::fetcher
