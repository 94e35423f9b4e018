// Opens the ledger before anything else runs: schema, feed.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/fetcher/ledger.h"
#include "services/fetcher/status_board.h"

namespace poststelle::fetcher {

struct PreparedLedger {
  std::unique_ptr<sql::Database> database;
  FeedInfo feed;
};

// Blocking; from main. Errors name the database and what stands in the way.
absl::StatusOr<PreparedLedger> PrepareLedger(asio::any_io_executor executor, const std::string& url);

// Reads the states that an earlier process left; without them every mailbox shows as waiting until its first poll.
async::Task<void> LoadStatuses(StatusBoard& board);

}  // namespace poststelle::fetcher
