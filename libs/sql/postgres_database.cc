#include <libpq-fe.h>

#include <algorithm>
#include <deque>
#include <mutex>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "libs/base/status_macros.h"
#include "libs/base/sv.h"
#include "libs/sql/postgres_connection.h"

namespace poststelle::sql {
namespace {

// Begins with its first statement, in the same exchange.
class PostgresTransaction : public Transaction {
 public:
  PostgresTransaction(PostgresConnection& connection, std::string_view begin)
      : connection_(connection), begin_(begin) {}

  async::Task<absl::StatusOr<Result>> Execute(std::string_view sql, std::vector<Value> params) override {
    std::vector<Statement> one(1);
    one[0].sql = sql;
    one[0].params = std::move(params);
    PS_CO_ASSIGN_OR_RETURN(std::vector<Result> results, co_await ExecuteAll(std::move(one)));
    co_return std::move(results[0]);
  }

  async::Task<absl::StatusOr<std::vector<Result>>> ExecuteAll(std::vector<Statement> statements) override {
    if (statements.empty()) co_return std::vector<Result>();
    const bool first = !begun_;
    if (first) {
      Statement begin{begin_, {}};
      statements.insert(statements.begin(), std::move(begin));
    } else if (RolledBack()) {
      co_return absl::AbortedError("the transaction has already been rolled back");
    }
    const int64_t before = connection_.exchanges();
    absl::StatusOr<std::vector<Result>> results = co_await connection_.Exchange(statements);
    begun_ = begun_ || connection_.exchanges() > before;
    if (!results.ok()) {
      conflict_ = conflict_ || connection_.conflict();
    } else if (first) {
      results->erase(results->begin());
    }
    co_return results;
  }

  async::Task<absl::Status> Savepoint(std::string_view name) override {
    const std::string sql = absl::StrCat("SAVEPOINT ", Av(name));
    co_return (co_await Execute(sql, {})).status();
  }
  async::Task<absl::Status> RollbackTo(std::string_view name) override {
    const std::string sql = absl::StrCat("ROLLBACK TO SAVEPOINT ", Av(name));
    absl::Status done = (co_await Execute(sql, {})).status();
    if (done.ok()) conflict_ = false;
    co_return done;
  }
  async::Task<absl::Status> ReleaseSavepoint(std::string_view name) override {
    const std::string sql = absl::StrCat("RELEASE SAVEPOINT ", Av(name));
    co_return (co_await Execute(sql, {})).status();
  }

  // Commits, or rolls back what `status` condemned.
  async::Task<absl::Status> End(absl::Status status) {
    if (!begun_) co_return status;
    if (status.ok() && connection_.broken()) {
      status = absl::UnavailableError("the connection to the database was lost");
    }
    if (status.ok() && connection_.block() != PostgresConnection::Block::kOpen) {
      // A commit would be a rollback that answers OK.
      status = absl::AbortedError("the transaction has already been rolled back");
    }
    if (status.ok()) {
      status = (co_await Plain("COMMIT")).status();
      conflict_ = conflict_ || connection_.conflict();
      if (connection_.broken()) {
        conflict_ = false;
        co_return absl::UnavailableError(
            absl::StrCat("the answer to the commit was lost, so its outcome is unknown: ", status.message()));
      }
    }
    if (connection_.broken() || connection_.block() == PostgresConnection::Block::kNone) co_return status;
    absl::Status rolled_back = (co_await Plain("ROLLBACK")).status();
    co_return status.ok() ? rolled_back : status;
  }

  // Whether what failed may succeed if it is done again.
  bool conflict() const { return conflict_; }

 private:
  bool RolledBack() const { return !connection_.broken() && connection_.block() == PostgresConnection::Block::kNone; }
  async::Task<absl::StatusOr<std::vector<Result>>> Plain(std::string_view sql) {
    std::vector<Statement> one(1);
    one[0].sql = sql;
    co_return co_await connection_.Exchange(one);
  }

  PostgresConnection& connection_;
  const std::string_view begin_;
  bool begun_ = false;
  bool conflict_ = false;
};

// So many at once; the others wait in the order of their arrival. Thread-safe.
class Slots {
 public:
  Slots(asio::any_io_executor executor, int count) : executor_(std::move(executor)), free_(count) {}

  async::Task<absl::Status> Acquire(absl::Duration timeout) {
    auto waiter = std::make_shared<Waiter>(executor_);
    {
      const std::lock_guard lock(mutex_);
      if (free_ > 0) {
        --free_;
        co_return absl::OkStatus();
      }
      queue_.push_back(waiter);
    }
    absl::Status woken = co_await waiter->event.Wait(timeout);
    const std::lock_guard lock(mutex_);
    if (waiter->granted) co_return absl::OkStatus();
    std::erase(queue_, waiter);
    if (absl::IsCancelled(woken)) co_return woken;
    co_return absl::UnavailableError(
        absl::StrCat("no database connection became free within ", absl::FormatDuration(timeout)));
  }

  void Release() {
    std::shared_ptr<Waiter> next;
    {
      const std::lock_guard lock(mutex_);
      if (queue_.empty()) {
        ++free_;
        return;
      }
      next = std::move(queue_.front());
      queue_.pop_front();
      next->granted = true;
    }
    next->event.Notify();
  }

 private:
  struct Waiter {
    explicit Waiter(asio::any_io_executor executor) : event(std::move(executor)) {}
    async::Event event;
    bool granted = false;  // guarded by mutex_
  };

  const asio::any_io_executor executor_;
  std::mutex mutex_;
  int free_;                                   // guarded by mutex_; 0 while somebody waits
  std::deque<std::shared_ptr<Waiter>> queue_;  // guarded by mutex_
};

absl::Duration Backoff(int attempt) {
  // Two that got into each other's way must not meet again in step.
  static thread_local std::minstd_rand random{std::random_device{}()};
  const int64_t ceiling = int64_t{2} << std::min(attempt, 8);
  return absl::Milliseconds(std::uniform_int_distribution<int64_t>(1, ceiling)(random));
}

class PostgresDatabase : public Database {
 public:
  PostgresDatabase(asio::any_io_executor executor, std::string url, PostgresOptions options)
      : executor_(std::move(executor)),
        url_(std::move(url)),
        options_(options),
        slots_(executor_, options.connections),
        connector_(1) {}

  Engine engine() const override { return Engine::kPostgres; }
  async::Task<absl::Status> Write(Work work) override {
    return Run("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", std::move(work));
  }
  async::Task<absl::Status> Read(Work work) override {
    return Run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", std::move(work));
  }
  async::Task<absl::StatusOr<Result>> ReadOne(Statement statement) override {
    PS_CO_RETURN_IF_ERROR(co_await slots_.Acquire(options_.acquire_timeout));
    absl::StatusOr<Result> result = absl::UnknownError("not run");
    co_await async::RunOn(executor_, ReadInto(std::move(statement), result));
    slots_.Release();
    co_return result;
  }

 private:
  async::Task<absl::Status> Run(std::string_view begin, Work work) {
    PS_CO_RETURN_IF_ERROR(co_await slots_.Acquire(options_.acquire_timeout));
    absl::Status result;
    // RunOn passes no cancellation on: a transaction that has begun comes to its end.
    co_await async::RunOn(executor_, RunInto(begin, work, result));
    slots_.Release();
    co_return result;
  }

  async::Task<void> RunInto(std::string_view begin, const Work& work, absl::Status& result) {
    for (int attempt = 0;; ++attempt) {
      absl::StatusOr<std::unique_ptr<PostgresConnection>> taken = co_await Take();
      if (!taken.ok()) {
        result = taken.status();
        co_return;
      }
      std::unique_ptr<PostgresConnection> connection = *std::move(taken);
      PostgresTransaction transaction(*connection, begin);
      absl::Status status = co_await work(transaction);
      result = co_await transaction.End(std::move(status));
      const bool again = !result.ok() && transaction.conflict() && attempt < options_.replays;
      GiveBack(std::move(connection));
      if (!again) break;
      (void)co_await async::Sleep(Backoff(attempt));
    }
  }

  async::Task<void> ReadInto(Statement statement, absl::StatusOr<Result>& result) {
    absl::StatusOr<std::unique_ptr<PostgresConnection>> connection = co_await Take();
    if (!connection.ok()) {
      result = connection.status();
      co_return;
    }
    std::vector<Statement> one;
    one.push_back(std::move(statement));
    absl::StatusOr<std::vector<Result>> results = co_await (*connection)->Exchange(one);
    if (results.ok()) {
      result = std::move(results->front());
    } else {
      result = results.status();
    }
    GiveBack(*std::move(connection));
  }

  // One that is idle, or a new one.
  async::Task<absl::StatusOr<std::unique_ptr<PostgresConnection>>> Take() {
    std::unique_ptr<PostgresConnection> idle = TakeIdle();
    if (idle != nullptr) co_return absl::StatusOr<std::unique_ptr<PostgresConnection>>(std::move(idle));
    absl::StatusOr<std::unique_ptr<PostgresConnection>> fresh = absl::UnknownError("not connected");
    co_await async::RunOn(connector_.executor(), ConnectInto(fresh));
    co_return fresh;
  }

  async::Task<void> ConnectInto(absl::StatusOr<std::unique_ptr<PostgresConnection>>& out) {
    out = co_await PostgresConnection::Connect(url_, options_);
  }

  std::unique_ptr<PostgresConnection> TakeIdle() {
    const std::lock_guard lock(mutex_);
    while (!idle_.empty()) {
      std::unique_ptr<PostgresConnection> connection = std::move(idle_.back());
      idle_.pop_back();
      if (!connection->Stale()) return connection;
    }
    return nullptr;
  }

  // One whose state is not known for certain is closed.
  void GiveBack(std::unique_ptr<PostgresConnection> connection) {
    if (connection->broken() || connection->block() != PostgresConnection::Block::kNone) return;
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(connection));
  }

  const asio::any_io_executor executor_;
  const std::string url_;
  const PostgresOptions options_;
  Slots slots_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<PostgresConnection>> idle_;  // guarded by mutex_; the one used last comes first
  async::Runtime connector_;                               // libpq looks up names blocking: not on the callers' threads
};

}  // namespace

absl::StatusOr<std::unique_ptr<Database>> OpenPostgres(asio::any_io_executor executor, const std::string& url,
                                                       PostgresOptions options) {
  char* error = nullptr;
  PQconninfoOption* parsed = PQconninfoParse(url.c_str(), &error);
  PQfreemem(error);  // repeats parts of the URL
  if (parsed == nullptr) {
    return absl::InvalidArgumentError(
        "the database URL is not a libpq URI (postgresql://USER@HOST:PORT/NAME?OPTION=…)");
  }
  PQconninfoFree(parsed);
  return std::make_unique<PostgresDatabase>(std::move(executor), url, options);
}

}  // namespace poststelle::sql
