// A small layer over SQL: transactions of prepared statements, awaited. SQLite here; PostgreSQL takes the same seam.
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

// A running transaction. Used by one coroutine, on the database's own executor; never outlives its callback.
class Transaction {
 public:
  virtual ~Transaction() = default;
  // Runs one statement. `sql` is a literal with parameters $1, $2 … in order (statements are prepared once and kept by
  // their text). Errors: kAlreadyExists for a violated unique constraint, kInvalidArgument for data that the database
  // refuses and for a parameter without a value, kUnavailable for what is worth a retry (busy, disk full, connection
  // lost), kAborted once the database has rolled the transaction back, kInternal otherwise.
  virtual async::Task<absl::StatusOr<Result>> Execute(std::string_view sql, std::vector<Value> params = {}) = 0;
  // Makes what follows undoable by RollbackTo(name) without losing the rest; `name` is a literal identifier.
  virtual async::Task<absl::Status> Savepoint(std::string_view name) = 0;
  virtual async::Task<absl::Status> RollbackTo(std::string_view name) = 0;
  virtual async::Task<absl::Status> ReleaseSavepoint(std::string_view name) = 0;
};

// The work of a transaction: OK commits, an error rolls back and is returned. It may suspend. It may be called again
// after a transient failure of the database, so it must be repeatable (DESIGN §3: every transaction may be replayed).
using Work = std::function<async::Task<absl::Status>(Transaction&)>;

// A database. Thread-safe; callers wait on their own executor while the work runs on the database's.
class Database {
 public:
  virtual ~Database() = default;
  // Runs `work` in a transaction that may write (SQLite: BEGIN IMMEDIATE), one at a time per process. When it returns
  // OK the changes are durable.
  virtual async::Task<absl::Status> Write(Work work) = 0;
  // Runs `work` on one consistent snapshot; nothing it does may write.
  virtual async::Task<absl::Status> Read(Work work) = 0;
};

// Opens or creates the SQLite file of `url` ("sqlite:PATH"): WAL, synchronous FULL, foreign keys, 16 KiB pages, busy
// time-out 10 s. Errors name the path and what stands in the way.
absl::StatusOr<std::unique_ptr<Database>> Open(const std::string& url);

// One schema step: additive, and readable by the version before.
struct Migration {
  int version;            // 1, 2, 3 … without gaps
  std::string_view name;  // for the log
  std::string_view sql;   // statements, separated by semicolons
};

// Brings the schema of `database` up to the last of `migrations` under a lock; others wait meanwhile. A database that
// is newer than this program is kFailedPrecondition.
async::Task<absl::Status> Migrate(Database& database, const std::vector<Migration>& migrations);

}  // namespace poststelle::sql
