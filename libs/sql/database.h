// A small layer over SQL: transactions of prepared statements, awaited, on SQLite or PostgreSQL.
//
// One dialect for both. Its rules:
// - A trailing " FOR UPDATE" locks the rows that a SELECT returns until the transaction ends: several of them run at
//   once on PostgreSQL. SQLite has one writer at a time, so there it is dropped.
// - The type BLOB in a migration becomes BYTEA on PostgreSQL.
// - Text holds no NUL byte and is UTF-8: PostgreSQL refuses it otherwise (kInvalidArgument), SQLite does not look.
// - Columns of an answer are integers, booleans, text or bytes; what PostgreSQL answers as another type (SUM of BIGINT
//   is NUMERIC) is kInternal and has to be CAST.
// - A statement that failed spoils a transaction on PostgreSQL: only RollbackTo a savepoint goes on, all else is
//   kAborted.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "libs/async/runtime.h"

namespace poststelle::sql {

// Bytes, as opposed to text.
struct Blob {
  std::string bytes;
};

// A parameter or a column: NULL, integer, text (UTF-8), bytes.
using Value = std::variant<std::monostate, int64_t, std::string, Blob>;

// One row of an answer. Reading a column as another type than it has is a defect of ours and aborts; NULL reads as
// 0 or empty.
class Row {
 public:
  explicit Row(std::vector<Value> values) : values_(std::move(values)) {}
  bool IsNull(size_t column) const { return std::holds_alternative<std::monostate>(values_[column]); }
  int64_t Int(size_t column) const;
  const std::string& Text(size_t column) const;  // text or bytes
 private:
  std::vector<Value> values_;
};

// Rows of a query, or the number of rows that a change touched.
struct Result {
  std::vector<Row> rows;
  int64_t changed = 0;
};

// A statement and the values of its parameters.
struct Statement {
  std::string_view sql;  // a literal; has to outlive the call
  std::vector<Value> params;
};

// A running transaction. Used by one coroutine, on the database's own executor; never outlives its callback.
class Transaction {
 public:
  virtual ~Transaction() = default;
  // Runs one statement. `sql` is a literal with parameters $1, $2 … in order (statements are prepared once and kept by
  // their text). Errors: kAlreadyExists for a violated unique constraint, kInvalidArgument for data that the database
  // refuses and for a parameter without a value, kUnavailable for what is worth a retry (busy, disk full, connection
  // lost), kAborted once the database has rolled the transaction back, kInternal otherwise.
  virtual async::Task<absl::StatusOr<Result>> Execute(std::string_view sql, std::vector<Value> params = {}) = 0;
  // Runs `statements` in order as one exchange with the server (PostgreSQL: one round trip) and returns their results
  // in order. The first failure is returned, as Execute would; nothing after it takes effect.
  virtual async::Task<absl::StatusOr<std::vector<Result>>> ExecuteAll(std::vector<Statement> statements) = 0;
  // Makes what follows undoable by RollbackTo(name) without losing the rest; `name` is a literal identifier.
  virtual async::Task<absl::Status> Savepoint(std::string_view name) = 0;
  virtual async::Task<absl::Status> RollbackTo(std::string_view name) = 0;
  virtual async::Task<absl::Status> ReleaseSavepoint(std::string_view name) = 0;
};

// The work of a transaction: OK commits, an error rolls back and is returned. It may suspend. It is called again after
// a serialization failure or a deadlock, so it must be repeatable (DESIGN §3: every transaction may be replayed): what
// it gathers in its captures starts anew each time.
using Work = std::function<async::Task<absl::Status>(Transaction&)>;

enum class Engine { kSqlite, kPostgres };

// A database. Thread-safe; callers wait on their own executor while the work runs on the database's.
class Database {
 public:
  virtual ~Database() = default;
  virtual Engine engine() const = 0;
  // Runs `work` in a transaction that may write: on SQLite (BEGIN IMMEDIATE) one at a time, on PostgreSQL (READ
  // COMMITTED) several at once, so what a decision rests on has to be locked FOR UPDATE. When it returns OK the changes
  // are durable. kUnavailable may also mean that the answer to the commit was lost: then the outcome is unknown.
  virtual async::Task<absl::Status> Write(Work work) = 0;
  // Runs `work` on one consistent snapshot; nothing it does may write.
  virtual async::Task<absl::Status> Read(Work work) = 0;
  // One statement that only reads: the same as Read with it alone, and cheaper (PostgreSQL: one round trip, no BEGIN).
  virtual async::Task<absl::StatusOr<Result>> ReadOne(Statement statement);
};

// Opens the database of `url`. Errors name the path or the server and what stands in the way, never the URL: it may
// hold a password. `executor` outlives the database; callers in flight end before it does.
//   sqlite:PATH       opens or creates the file: WAL, synchronous FULL, foreign keys, 4 KiB pages, busy time-out 10 s;
//                     its threads are its own.
//   postgresql://…    (or postgres://…) libpq's URI, TLS as its sslmode says. Connects when the first transaction asks
//                     for it and again after a loss, so a server that is away is kUnavailable from Write and Read.
absl::StatusOr<std::unique_ptr<Database>> Open(asio::any_io_executor executor, const std::string& url);

// The file of an SQLite URL; empty for any other.
std::optional<std::string> SqlitePath(const std::string& url);

// One schema step: additive, and readable by the version before.
struct Migration {
  int version;            // 1, 2, 3 … without gaps
  std::string_view name;  // for the log
  std::string_view sql;   // statements, separated by semicolons
};

// Brings the schema of `database` up to the last of `migrations` under a lock; others wait meanwhile. A database that
// is newer than this program is kFailedPrecondition, one that is away kUnavailable.
async::Task<absl::Status> Migrate(Database& database, const std::vector<Migration>& migrations);

}  // namespace poststelle::sql
