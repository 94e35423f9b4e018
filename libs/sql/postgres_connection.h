// One connection to PostgreSQL: libpq in pipeline mode on asio's event loop.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/sql/engines.h"

struct pg_conn;
struct pg_result;

namespace poststelle::sql {

// What libpq has to be told about the text of a statement.
struct StatementShape {
  size_t parameters = 0;  // the highest $N
  bool single = true;     // nothing follows a semicolon
};
StatementShape ShapeOf(std::string_view sql);

// Used by one coroutine at a time. Statements are prepared once and kept by their text.
class PostgresConnection {
 public:
  // Connects and sets the session up. Names are looked up by libpq, which blocks the calling thread meanwhile: run it
  // on a thread that may wait. kUnavailable with the server's words if it does not work.
  static async::Task<absl::StatusOr<std::unique_ptr<PostgresConnection>>> Connect(std::string url,
                                                                                  PostgresOptions options);
  explicit PostgresConnection(PostgresOptions options);
  ~PostgresConnection();
  PostgresConnection(const PostgresConnection&) = delete;
  PostgresConnection& operator=(const PostgresConnection&) = delete;

  // Sends everything, then reads every answer: one round trip. The first failure is returned; the server skips what
  // comes after it. A faulty parameter is refused before anything is sent. A connection that was lost or did not answer
  // in time is broken() from then on.
  async::Task<absl::StatusOr<std::vector<Result>>> Exchange(const std::vector<Statement>& statements);

  // What the server says after the last exchange.
  enum class Block { kNone, kOpen, kFailed };
  Block block() const;
  bool broken() const;
  // Whether the last failure was a serialization failure or a deadlock: the same work may succeed the next time.
  bool conflict() const { return sqlstate_ == "40001" || sqlstate_ == "40P01"; }
  // Exchanges that were sent.
  int64_t exchanges() const { return exchanges_; }
  // Whether the server closed it, or spoke, while nobody used it. Does not block.
  bool Stale() const;

 private:
  struct Command;
  using Clock = std::chrono::steady_clock;

  async::Task<absl::Status> ConnectInto(std::string url);
  absl::Status Send(const std::vector<Statement>& statements, std::vector<Command>& commands);
  // Waits until the next result can be read without blocking.
  async::Task<absl::Status> AwaitResult();
  absl::Status Take(const Command& command, const pg_result* answer, std::vector<Result>& results);
  absl::Status Lost(std::string_view what);
  absl::Status Failure(const pg_result* answer);

  const PostgresOptions options_;
  pg_conn* connection_ = nullptr;
  bool broken_ = false;
  int64_t exchanges_ = 0;
  std::string sqlstate_;
  struct Prepared {
    std::string name;
    size_t parameters = 0;
  };
  std::unordered_map<std::string, Prepared, TextHash, std::equal_to<>> prepared_;  // by text
};

}  // namespace poststelle::sql
