#include <sqlite3.h>
#include <sys/stat.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <unordered_map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "libs/base/status_macros.h"
#include "libs/base/sv.h"
#include "libs/sql/engines.h"

namespace poststelle::sql {

namespace {

// So long another process may hold the file before a transaction fails as unavailable; none is replayed.
constexpr int kBusyTimeoutMs = 10'000;
// Statements are literals of this program; more than this many would mean that somebody builds them from data.
constexpr size_t kMaxStatements = 512;

absl::Status ToStatus(int code, sqlite3* db, std::string_view doing) {
  const std::string text = absl::StrCat(Av(doing), ": ", db == nullptr ? sqlite3_errstr(code) : sqlite3_errmsg(db));
  switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
      return absl::OkStatus();
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_FULL:  // these three pass, or somebody mends them: worth a retry
    case SQLITE_IOERR:
    case SQLITE_NOMEM:
      return absl::UnavailableError(text);
    case SQLITE_CONSTRAINT:
      return code == SQLITE_CONSTRAINT_UNIQUE || code == SQLITE_CONSTRAINT_PRIMARYKEY
                 ? absl::AlreadyExistsError(text)
                 : absl::InvalidArgumentError(text);
    case SQLITE_TOOBIG:
    case SQLITE_MISMATCH:
      return absl::InvalidArgumentError(text);
    default:
      return absl::InternalError(text);
  }
}

// One connection, used on one thread at a time.
class Connection : public Transaction {
 public:
  Connection() = default;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() override {
    for (auto& [sql, prepared] : statements_) sqlite3_finalize(prepared.statement);
    sqlite3_close(db_);
  }

  absl::Status Open(const std::string& path, bool writer) {
    // SQLite would make the file readable by everybody; its journal and index take over the mode of the file.
    if (mknod(path.c_str(), S_IFREG | 0600, 0) != 0 && errno != EEXIST) {
      return absl::FailedPreconditionError(absl::StrCat("can't create database ", path, ": ", std::strerror(errno)));
    }
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
    if (int rc = sqlite3_open_v2(path.c_str(), &db_, flags, nullptr); rc != SQLITE_OK) {
      return ToStatus(rc, db_, absl::StrCat("can't open database ", path));
    }
    sqlite3_busy_timeout(db_, kBusyTimeoutMs);
    const std::string doing = absl::StrCat("can't set up database ", path);
    PS_RETURN_IF_ERROR(Plain("PRAGMA page_size = 4096", doing));
    PS_RETURN_IF_ERROR(SwitchToWal(path));
    // Temporary data in memory: there may be no folder that can be written but the database's own.
    for (const char* pragma : {"PRAGMA synchronous = FULL", "PRAGMA foreign_keys = ON", "PRAGMA temp_store = MEMORY",
                               "PRAGMA journal_size_limit = 67108864", "PRAGMA cache_size = -8192",
                               // A page that changes again and again goes to the database once for all: four times
                               // the default.
                               "PRAGMA wal_autocheckpoint = 4000"}) {
      PS_RETURN_IF_ERROR(Plain(pragma, doing));
    }
    return writer ? absl::OkStatus() : Plain("PRAGMA query_only = ON", doing);
  }

  absl::Status Plain(const std::string& sql, std::string_view doing) {
    return ToStatus(sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr), db_, doing);
  }

  // Commits, or rolls back what `status` condemned.
  absl::Status End(absl::Status status) {
    // After some errors (disk full, out of memory) SQLite has rolled back by itself: then there is nothing to commit,
    // even if the work closed its eyes.
    if (status.ok()) status = Alive();
    if (status.ok()) status = Plain("COMMIT", "commit");
    if (sqlite3_get_autocommit(db_) == 0) {
      absl::Status rolled_back = Plain("ROLLBACK", "rollback");
      if (!rolled_back.ok() && status.ok()) status = rolled_back;
    }
    return status;
  }

  async::Task<absl::StatusOr<Result>> Execute(std::string_view sql, std::vector<Value> params) override {
    PS_CO_RETURN_IF_ERROR(Alive());
    co_return Run(sql, params);
  }
  async::Task<absl::StatusOr<std::vector<Result>>> ExecuteAll(std::vector<Statement> statements) override {
    std::vector<Result> results;
    results.reserve(statements.size());
    for (const Statement& statement : statements) {
      PS_CO_RETURN_IF_ERROR(Alive());
      PS_CO_ASSIGN_OR_RETURN(Result result, Run(statement.sql, statement.params));
      results.push_back(std::move(result));
    }
    co_return results;
  }
  async::Task<absl::Status> Savepoint(std::string_view name) override {
    PS_CO_RETURN_IF_ERROR(Alive());
    co_return Plain(absl::StrCat("SAVEPOINT ", Av(name)), "savepoint");
  }
  async::Task<absl::Status> RollbackTo(std::string_view name) override {
    PS_CO_RETURN_IF_ERROR(Alive());
    co_return Plain(absl::StrCat("ROLLBACK TO ", Av(name)), "rollback to savepoint");
  }
  async::Task<absl::Status> ReleaseSavepoint(std::string_view name) override {
    PS_CO_RETURN_IF_ERROR(Alive());
    co_return Plain(absl::StrCat("RELEASE ", Av(name)), "release savepoint");
  }

 private:
  // A statement outside the transaction would be durable at once and survive the failure of the work.
  absl::Status Alive() {
    if (sqlite3_get_autocommit(db_) == 0) return absl::OkStatus();
    return absl::AbortedError("the transaction has already been rolled back");
  }

  // Several processes may open a new file at once; the switch does not wait for its turn by itself.
  absl::Status SwitchToWal(const std::string& path) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kBusyTimeoutMs);
    for (;;) {
      absl::StatusOr<Result> mode = Run("PRAGMA journal_mode = WAL", {});
      if (mode.ok() && mode->rows.size() == 1 && mode->rows[0].Text(0) == "wal") return absl::OkStatus();
      if (!absl::IsUnavailable(mode.status())) {
        if (!mode.ok()) return mode.status();
        return absl::FailedPreconditionError(
            absl::StrCat("database ", path, " can't keep a write-ahead log; put it on a local file system"));
      }
      if (std::chrono::steady_clock::now() > deadline) return mode.status();
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  // A statement that is kept.
  struct Prepared {
    sqlite3_stmt* statement = nullptr;
    std::vector<size_t> numbers;  // for each of SQLite's parameters, the N of its $N; 0 for another name
  };

  absl::StatusOr<const Prepared*> Prepare(std::string_view sql) {
    // The one writer holds a lock on everything already.
    constexpr std::string_view kForUpdate = " FOR UPDATE";
    if (sql.ends_with(kForUpdate)) sql.remove_suffix(kForUpdate.size());
    auto it = statements_.find(sql);
    if (it != statements_.end()) return &it->second;
    if (statements_.size() >= kMaxStatements) {
      for (auto& [text, old] : statements_) sqlite3_finalize(old.statement);
      statements_.clear();
    }
    sqlite3_stmt* statement = nullptr;
    const char* rest = nullptr;
    const int rc =
        sqlite3_prepare_v3(db_, sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT, &statement, &rest);
    if (rc != SQLITE_OK) return ToStatus(rc, db_, "prepare");
    const absl::string_view leftover(rest, static_cast<size_t>(sql.data() + sql.size() - rest));
    if (statement == nullptr || !absl::StripAsciiWhitespace(leftover).empty()) {
      sqlite3_finalize(statement);
      return absl::InvalidArgumentError("Execute takes one statement");
    }
    Prepared prepared;
    prepared.statement = statement;
    // "$3" is a name to SQLite, numbered by its first appearance.
    for (int index = 1; index <= sqlite3_bind_parameter_count(statement); ++index) {
      const char* name = sqlite3_bind_parameter_name(statement, index);
      size_t number = 0;
      if (name != nullptr && name[0] == '$') std::from_chars(name + 1, name + std::strlen(name), number);
      prepared.numbers.push_back(number);
    }
    return &statements_.emplace(std::string(sql), std::move(prepared)).first->second;
  }

  static int Bind(sqlite3_stmt* statement, int index, const Value& value) {
    if (const auto* i = std::get_if<int64_t>(&value)) return sqlite3_bind_int64(statement, index, *i);
    if (const auto* s = std::get_if<std::string>(&value)) {
      return sqlite3_bind_text64(statement, index, s->data(), s->size(), SQLITE_STATIC, SQLITE_UTF8);
    }
    if (const auto* b = std::get_if<Blob>(&value)) {
      return sqlite3_bind_blob64(statement, index, b->bytes.data(), b->bytes.size(), SQLITE_STATIC);
    }
    return sqlite3_bind_null(statement, index);
  }

  static Value Column(sqlite3_stmt* statement, int i) {
    const int type = sqlite3_column_type(statement, i);  // first: reading the size may convert the value
    const auto size = static_cast<size_t>(sqlite3_column_bytes(statement, i));
    switch (type) {
      case SQLITE_INTEGER:
        return int64_t{sqlite3_column_int64(statement, i)};
      case SQLITE_TEXT:
        return std::string(reinterpret_cast<const char*>(sqlite3_column_text(statement, i)), size);
      case SQLITE_BLOB: {
        Blob blob;
        if (size > 0) blob.bytes.assign(static_cast<const char*>(sqlite3_column_blob(statement, i)), size);
        return blob;
      }
      default:
        return std::monostate{};
    }
  }

  absl::StatusOr<Result> Run(std::string_view sql, const std::vector<Value>& params) {
    PS_ASSIGN_OR_RETURN(const Prepared* prepared, Prepare(sql));
    sqlite3_stmt* const statement = prepared->statement;
    for (size_t i = 0; i < prepared->numbers.size(); ++i) {
      const size_t number = prepared->numbers[i];
      const int index = static_cast<int>(i) + 1;
      if (number == 0 || number > params.size()) {
        const char* name = sqlite3_bind_parameter_name(statement, index);
        return absl::InvalidArgumentError(absl::StrCat("parameter ", name == nullptr ? "?" : name, " has no value"));
      }
      if (int rc = Bind(statement, index, params[number - 1]); rc != SQLITE_OK) return ToStatus(rc, db_, "bind");
    }
    const int64_t before = sqlite3_total_changes64(db_);
    Result result;
    int rc = sqlite3_step(statement);
    while (rc == SQLITE_ROW) {
      std::vector<Value> row;
      const int columns = sqlite3_column_count(statement);
      row.reserve(static_cast<size_t>(columns));
      for (int i = 0; i < columns; ++i) row.push_back(Column(statement, i));
      result.rows.emplace_back(std::move(row));
      rc = sqlite3_step(statement);
    }
    absl::Status status = ToStatus(rc, db_, "execute");
    // What the last change touched stays readable after statements that change nothing.
    result.changed = sqlite3_total_changes64(db_) == before ? 0 : sqlite3_changes64(db_);
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    if (!status.ok()) return status;
    return result;
  }

  sqlite3* db_ = nullptr;
  std::unordered_map<std::string, Prepared, TextHash, std::equal_to<>> statements_;
};

// A connection on a thread of its own that runs one transaction at a time, in the order of their arrival.
class Lane {
 public:
  Lane() : runtime_(1), turn_(runtime_.executor(), 1) {}
  absl::Status Open(const std::string& path, bool writer) {
    begin_ = writer ? "BEGIN IMMEDIATE" : "BEGIN";
    return connection_.Open(path, writer);
  }

  async::Task<absl::Status> Run(Work work) {
    absl::Status result;
    co_await async::RunOn(runtime_.executor(), RunInto(work, result));
    co_return result;
  }

 private:
  // RunOn passes no cancellation on: a transaction that has its turn comes to its end.
  async::Task<void> RunInto(const Work& work, absl::Status& result) {
    result = co_await turn_.Acquire(1);
    if (!result.ok()) co_return;
    result = connection_.Plain(begin_, "begin");
    if (result.ok()) {
      absl::Status status = co_await work(connection_);
      result = connection_.End(std::move(status));
    }
    turn_.Release(1);
  }

  std::string begin_;
  Connection connection_;
  async::Runtime runtime_;  // after the connection: its thread ends before the connection does
  async::Budget turn_;      // the work may suspend; nobody else's statements may slip in between
};

class SqliteDatabase : public Database {
 public:
  absl::Status Open(const std::string& path) {
    PS_RETURN_IF_ERROR(writer_.Open(path, true));
    return reader_.Open(path, false);
  }
  Engine engine() const override { return Engine::kSqlite; }
  async::Task<absl::Status> Write(Work work) override { return writer_.Run(std::move(work)); }
  async::Task<absl::Status> Read(Work work) override { return reader_.Run(std::move(work)); }

 private:
  Lane writer_;
  Lane reader_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Database>> OpenSqlite(const std::string& path) {
  auto database = std::make_unique<SqliteDatabase>();
  PS_RETURN_IF_ERROR(database->Open(path));
  return database;
}

}  // namespace poststelle::sql
