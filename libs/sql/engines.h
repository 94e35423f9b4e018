// The engines behind sql::Open, for it and for tests that need other limits.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "libs/sql/database.h"

namespace poststelle::sql {

// Length of the quoted text ('…', "…", $$…$$) that `sql` starts with, to its end if it is not closed; 0 if it starts
// with none.
size_t QuotedLength(std::string_view sql);

// Finds a statement by its text without copying it.
struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};

absl::StatusOr<std::unique_ptr<Database>> OpenSqlite(const std::string& path);

// Limits of a PostgreSQL pool.
struct PostgresOptions {
  int connections = 8;                                   // at most; opened as they are needed
  absl::Duration acquire_timeout = absl::Seconds(30);    // for a free connection, first come, first served
  absl::Duration connect_timeout = absl::Seconds(10);    // per attempt, over all addresses
  absl::Duration statement_timeout = absl::Seconds(30);  // by the server
  absl::Duration lock_timeout = absl::Seconds(10);       // by the server
  absl::Duration idle_timeout = absl::Seconds(60);       // by the server, for a transaction that does nothing
  absl::Duration answer_margin = absl::Seconds(5);       // beyond statement_timeout the connection is given up
  int replays = 10;                                      // after serialization failures and deadlocks
};

// Checks the form of `url` and opens nothing yet. kInvalidArgument if libpq can't read it.
absl::StatusOr<std::unique_ptr<Database>> OpenPostgres(asio::any_io_executor executor, const std::string& url,
                                                       PostgresOptions options);

}  // namespace poststelle::sql
