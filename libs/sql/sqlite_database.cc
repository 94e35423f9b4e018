#include <sqlite3.h>

#include <cstdlib>
#include <deque>
#include <mutex>
#include <unordered_map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "libs/base/status_macros.h"
#include "libs/base/sv.h"
#include "libs/sql/database.h"

namespace poststelle::sql {

int64_t Row::Int(size_t column) const {
  if (IsNull(column)) return 0;
  if (const auto* i = std::get_if<int64_t>(&values_[column])) return *i;
  std::abort();  // a defect of ours: the query and its reader disagree
}

const std::string& Row::Text(size_t column) const {
  static const std::string kEmpty;
  if (IsNull(column)) return kEmpty;
  if (const auto* s = std::get_if<std::string>(&values_[column])) return *s;
  if (const auto* b = std::get_if<Blob>(&values_[column])) return b->bytes;
  std::abort();
}

namespace {

// A whole transaction is tried this often when another process holds the file.
constexpr int kBusyTries = 5;
constexpr int kBusyTimeoutMs = 10'000;

absl::Status ToStatus(int code, sqlite3* db, std::string_view doing) {
  const std::string text = absl::StrCat(Av(doing), ": ", db == nullptr ? sqlite3_errstr(code) : sqlite3_errmsg(db));
  switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
      return absl::OkStatus();
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
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
    for (auto& [sql, statement] : statements_) sqlite3_finalize(statement);
    sqlite3_close(db_);
  }

  absl::Status Open(const std::string& path, bool writer) {
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
    if (int rc = sqlite3_open_v2(path.c_str(), &db_, flags, nullptr); rc != SQLITE_OK) {
      return ToStatus(rc, db_, absl::StrCat("can't open database ", path));
    }
    sqlite3_busy_timeout(db_, kBusyTimeoutMs);
    for (const char* pragma :
         {"PRAGMA page_size = 16384", "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL",
          "PRAGMA foreign_keys = ON", "PRAGMA journal_size_limit = 67108864", "PRAGMA cache_size = -32768"}) {
      PS_RETURN_IF_ERROR(Plain(pragma, absl::StrCat("can't set up database ", path)));
    }
    return writer ? absl::OkStatus() : Plain("PRAGMA query_only = ON", "can't set up the reader");
  }

  absl::Status Plain(const std::string& sql, std::string_view doing) {
    return ToStatus(sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr), db_, doing);
  }

  async::Task<absl::StatusOr<Result>> Execute(std::string_view sql, std::vector<Value> params) override {
    co_return Run(sql, params);
  }
  async::Task<absl::Status> Savepoint(std::string_view name) override {
    co_return Plain(absl::StrCat("SAVEPOINT ", Av(name)), "savepoint");
  }
  async::Task<absl::Status> RollbackTo(std::string_view name) override {
    co_return Plain(absl::StrCat("ROLLBACK TO ", Av(name)), "rollback to savepoint");
  }
  async::Task<absl::Status> ReleaseSavepoint(std::string_view name) override {
    co_return Plain(absl::StrCat("RELEASE ", Av(name)), "release savepoint");
  }

 private:
  absl::StatusOr<sqlite3_stmt*> Prepare(std::string_view sql) {
    auto it = statements_.find(std::string(sql));
    if (it != statements_.end()) return it->second;
    sqlite3_stmt* statement = nullptr;
    const int rc = sqlite3_prepare_v3(db_, sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT,
                                      &statement, nullptr);
    if (rc != SQLITE_OK) return ToStatus(rc, db_, "prepare");
    statements_.emplace(std::string(sql), statement);
    return statement;
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
    const auto size = static_cast<size_t>(sqlite3_column_bytes(statement, i));
    switch (sqlite3_column_type(statement, i)) {
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
    PS_ASSIGN_OR_RETURN(sqlite3_stmt * statement, Prepare(sql));
    for (size_t i = 0; i < params.size(); ++i) {
      // "$3" is a name to SQLite, numbered by its first appearance.
      const int index = sqlite3_bind_parameter_index(statement, absl::StrCat("$", i + 1).c_str());
      if (index == 0) continue;  // the statement does not use this one
      if (int rc = Bind(statement, index, params[i]); rc != SQLITE_OK) return ToStatus(rc, db_, "bind");
    }
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
    result.changed = sqlite3_changes64(db_);
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    if (!status.ok()) return status;
    return result;
  }

  sqlite3* db_ = nullptr;
  std::unordered_map<std::string, sqlite3_stmt*> statements_;
};

// A connection on a thread of its own that runs one transaction at a time. Statements complete where they are awaited,
// so a transaction never suspends half way and no lock is held across an await.
class Lane {
 public:
  Lane() : runtime_(1) {}
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
  async::Task<void> RunInto(const Work& work, absl::Status& result) {
    for (int i = 0; i < kBusyTries; ++i) {
      result = co_await Once(work);
      if (!absl::IsUnavailable(result)) co_return;
    }
  }

  async::Task<absl::Status> Once(const Work& work) {
    PS_CO_RETURN_IF_ERROR(connection_.Plain(begin_, "begin"));
    absl::Status status = co_await work(connection_);
    if (status.ok()) status = connection_.Plain("COMMIT", "commit");
    if (!status.ok()) {
      // After some errors SQLite has rolled back by itself; then this one says so and nothing is lost.
      absl::Status rolled_back = connection_.Plain("ROLLBACK", "rollback");
      if (!rolled_back.ok() && !absl::StrContains(rolled_back.message(), "no transaction")) co_return rolled_back;
    }
    co_return status;
  }

  std::string begin_;
  Connection connection_;
  async::Runtime runtime_;  // last: its thread ends before the connection does
};

class SqliteDatabase : public Database {
 public:
  absl::Status Open(const std::string& path) {
    PS_RETURN_IF_ERROR(writer_.Open(path, true));
    return reader_.Open(path, false);
  }
  async::Task<absl::Status> Write(Work work) override { return writer_.Run(std::move(work)); }
  async::Task<absl::Status> Read(Work work) override { return reader_.Run(std::move(work)); }

 private:
  Lane writer_;
  Lane reader_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Database>> Open(const std::string& url) {
  constexpr std::string_view kScheme = "sqlite:";
  if (!url.starts_with(kScheme) || url.size() == kScheme.size()) {
    return absl::InvalidArgumentError(absl::StrCat("database \"", url, "\": give it as sqlite:PATH"));
  }
  auto database = std::make_unique<SqliteDatabase>();
  PS_RETURN_IF_ERROR(database->Open(url.substr(kScheme.size())));
  return database;
}

}  // namespace poststelle::sql
