// What has to be true of the ledger before anything rests on it.
#pragma once

#include "absl/status/status.h"
#include "libs/blob/blob_store.h"
#include "services/fetcher/ledger.h"
#include "services/fetcher/status_board.h"

namespace poststelle::fetcher {

// Brings the schema up to date, reads the feed's constants into `feed`, and the states of mailboxes that earlier
// processes left into `board`, and frees what these left in `raw`. Repeatable; kUnavailable while the database is away.
async::Task<absl::Status> PrepareLedger(sql::Database& database, blob::Store& raw, FeedInfo& feed, StatusBoard& board);

}  // namespace poststelle::fetcher
