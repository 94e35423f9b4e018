#include "services/fetcher/prepare.h"

#include "libs/base/status_macros.h"
#include "libs/observe/log.h"
#include "services/fetcher/schema.h"

namespace poststelle::fetcher {

async::Task<absl::Status> PrepareLedger(sql::Database& database, blob::Store& raw, FeedInfo& feed, StatusBoard& board) {
  const std::vector<sql::Migration> migrations = LedgerMigrations();
  PS_CO_RETURN_IF_ERROR(co_await sql::Migrate(database, migrations));
  PS_CO_ASSIGN_OR_RETURN(feed, co_await EnsureFeed(database));
  absl::Status loaded = co_await board.Load();
  if (absl::IsUnavailable(loaded)) co_return loaded;
  if (!loaded.ok()) {
    // Without them every mailbox shows as waiting until its first poll.
    observe::Log(observe::Level::kWarning, "status.load_failed", {{"error", std::string(loaded.message())}});
  }
  absl::StatusOr<int64_t> freed = co_await raw.Reclaim(database);
  if (absl::IsUnavailable(freed.status())) co_return freed.status();
  if (!freed.ok()) {
    observe::Log(observe::Level::kWarning, "raw.reclaim_failed", {{"error", std::string(freed.status().message())}});
  } else if (*freed > 0) {
    observe::Log(observe::Level::kInfo, "raw.reclaimed", {{"bytes", *freed}});
  }
  co_return absl::OkStatus();
}

}  // namespace poststelle::fetcher
