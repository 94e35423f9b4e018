#include "services/fetcher/prepare.h"

#include "libs/base/status_macros.h"
#include "libs/observe/log.h"
#include "services/fetcher/schema.h"

namespace poststelle::fetcher {
namespace {

async::Task<void> Prepare(sql::Database& database, absl::StatusOr<FeedInfo>& out) {
  absl::Status migrated = co_await sql::Migrate(database, LedgerMigrations());
  if (migrated.ok()) {
    out = co_await EnsureFeed(database);
  } else {
    out = migrated;
  }
}

}  // namespace

absl::StatusOr<PreparedLedger> PrepareLedger(asio::any_io_executor executor, const std::string& url) {
  PreparedLedger out;
  PS_ASSIGN_OR_RETURN(out.database, sql::Open(executor, url));
  absl::StatusOr<FeedInfo> feed = absl::UnknownError("not prepared");
  async::RunBlocking(executor, Prepare(*out.database, feed));
  PS_ASSIGN_OR_RETURN(out.feed, std::move(feed));
  return out;
}

async::Task<void> LoadStatuses(StatusBoard& board) {
  absl::Status loaded = co_await board.Load();
  if (!loaded.ok())
    observe::Log(observe::Level::kWarning, "status.load_failed", {{"error", std::string(loaded.message())}});
}

}  // namespace poststelle::fetcher
