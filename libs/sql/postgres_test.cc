// What PostgreSQL does to a service: dies, stands still, loses an answer, refuses to serialise.
#include <gtest/gtest.h>
#include <libpq-fe.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "libs/base/ids.h"
#include "libs/base/status_macros.h"
#include "libs/sql/engines.h"
#include "libs/sql/postgres_connection.h"
#include "libs/testing/temp_database.h"
#include "libs/testing/temp_postgres.h"

namespace poststelle::sql {
namespace {

using testing::TempPostgres;

// Passes bytes between a client and the server, until the client says the word: then the server still gets it, and the
// client nothing more.
class Proxy {
 public:
  Proxy(const std::filesystem::path& server, std::string word) : server_(server), word_(std::move(word)) {
    folder_ = std::filesystem::temp_directory_path() / ("poststelle-proxy-" + RandomId());
    std::filesystem::create_directory(folder_);
    listener_ = socket(AF_UNIX, SOCK_STREAM, 0);
    const sockaddr_un address = Address(folder_ / TempPostgres::kSocketName);
    EXPECT_EQ(bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(listen(listener_, 8), 0);
    thread_ = std::thread([this] { Serve(); });
  }
  ~Proxy() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
    std::filesystem::remove_all(folder_);
  }
  const std::filesystem::path& folder() const { return folder_; }
  int cuts() const { return cuts_; }

 private:
  static sockaddr_un Address(const std::filesystem::path& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    return address;
  }

  // One client after the other.
  void Serve() {
    while (true) {
      const int client = accept(listener_, nullptr, nullptr);
      if (client < 0) return;
      const int server = socket(AF_UNIX, SOCK_STREAM, 0);
      const sockaddr_un address = Address(server_ / TempPostgres::kSocketName);
      EXPECT_EQ(connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
      Pass(client, server);
      close(client);
      close(server);
    }
  }

  void Pass(int client, int server) {
    std::string said;
    char buffer[4096];
    while (true) {
      pollfd fds[2] = {{client, POLLIN, 0}, {server, POLLIN, 0}};
      if (poll(fds, 2, -1) < 0) return;
      for (int i = 0; i < 2; ++i) {
        if (fds[i].revents == 0) continue;
        const ssize_t got = read(fds[i].fd, buffer, sizeof(buffer));
        if (got <= 0) return;
        if (write(i == 0 ? server : client, buffer, static_cast<size_t>(got)) != got) return;
        if (i == 1) continue;
        said.append(buffer, static_cast<size_t>(got));
        if (said.find(word_) == std::string::npos) continue;
        (void)!read(server, buffer, sizeof(buffer));  // the answer: the server has done it
        ++cuts_;
        return;
      }
    }
  }

  const std::filesystem::path server_;
  const std::string word_;
  std::filesystem::path folder_;
  int listener_ = -1;
  std::atomic<int> cuts_ = 0;
  std::thread thread_;
};

class PostgresTest : public ::testing::Test {
 protected:
  PostgresTest() {
    options_.statement_timeout = absl::Seconds(20);
    options_.connect_timeout = absl::Seconds(20);
  }

  static async::Task<void> Into(async::Task<absl::Status> task, absl::Status& out) { out = co_await std::move(task); }
  absl::Status Await(async::Task<absl::Status> task) {
    absl::Status out;
    async::RunBlocking(runtime_.executor(), Into(std::move(task), out));
    return out;
  }
  std::unique_ptr<Database> Connect(const std::string& url) {
    auto database = OpenPostgres(runtime_.executor(), url, options_);
    EXPECT_TRUE(database.ok()) << database.status();
    return *std::move(database);
  }
  absl::Status Run(Database& db, std::string sql, std::vector<Value> params = {}) {
    Work work = [&](Transaction& tx) -> async::Task<absl::Status> {
      co_return (co_await tx.Execute(sql, params)).status();
    };
    return Await(db.Write(work));
  }
  int64_t Number(Database& db, std::string sql) {
    int64_t number = -1;
    Work work = [&](Transaction& tx) -> async::Task<absl::Status> {
      PS_CO_ASSIGN_OR_RETURN(Result r, co_await tx.Execute(sql));
      number = r.rows.at(0).Int(0);
      co_return absl::OkStatus();
    };
    const absl::Status read = Await(db.Read(work));
    EXPECT_TRUE(read.ok()) << read;
    return number;
  }

  PostgresOptions options_;
  async::Runtime runtime_{2};
};

TEST_F(PostgresTest, AKilledServerTakesTheTransactionAndNothingElse) {
  TempPostgres server;
  auto db = Connect(server.NewDatabase());
  ASSERT_TRUE(Run(*db, "CREATE TABLE t (n BIGINT)").ok());
  ASSERT_TRUE(Run(*db, "INSERT INTO t VALUES (1)").ok());
  // Killed from the thread that made it, while the transaction waits.
  std::atomic<bool> in_transaction = false;
  std::atomic<bool> killed = false;
  absl::Status lost;
  Work work = [&](Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_RETURN_IF_ERROR((co_await tx.Execute("INSERT INTO t VALUES (2)")).status());
    in_transaction = true;
    while (!killed) PS_CO_RETURN_IF_ERROR(co_await async::Sleep(absl::Milliseconds(1)));
    co_return (co_await tx.Execute("INSERT INTO t VALUES (3)")).status();
  };
  async::TaskScope scope(runtime_.executor());
  scope.Spawn(Into(db->Write(work), lost));
  while (!in_transaction) std::this_thread::yield();
  server.Kill();
  killed = true;
  scope.JoinBlocking();
  EXPECT_TRUE(absl::IsUnavailable(lost)) << lost;
  EXPECT_TRUE(absl::IsUnavailable(Run(*db, "INSERT INTO t VALUES (4)")));
  server.Start();
  EXPECT_TRUE(Run(*db, "INSERT INTO t VALUES (5)").ok());  // connects again
  EXPECT_EQ(Number(*db, "SELECT CAST(SUM(n) AS BIGINT) FROM t"), 6);
}

TEST_F(PostgresTest, ARestartBetweenTransactionsIsNotNoticed) {
  TempPostgres server;
  auto db = Connect(server.NewDatabase());
  ASSERT_TRUE(Run(*db, "CREATE TABLE t (n BIGINT)").ok());
  server.Kill();
  server.Start();
  const absl::Status written = Run(*db, "INSERT INTO t VALUES (1)");
  EXPECT_TRUE(written.ok()) << written;
}

TEST_F(PostgresTest, AServerThatStandsStillIsGivenUp) {
  options_.statement_timeout = absl::Milliseconds(300);
  options_.answer_margin = absl::Milliseconds(200);
  options_.connect_timeout = absl::Milliseconds(500);
  TempPostgres server;
  const std::string url = server.NewDatabase();
  auto db = Connect(url);
  ASSERT_TRUE(Run(*db, "CREATE TABLE t (n BIGINT)").ok());
  server.Pause();
  EXPECT_TRUE(absl::IsUnavailable(Run(*db, "INSERT INTO t VALUES (1)")));
  EXPECT_TRUE(absl::IsUnavailable(Run(*db, "INSERT INTO t VALUES (1)")));  // nor does it answer a new connection
  server.Resume();
  options_ = PostgresOptions{};
  auto patient = Connect(url);
  EXPECT_TRUE(Run(*patient, "INSERT INTO t VALUES (1)").ok());
}

TEST_F(PostgresTest, ALostAnswerToTheCommitIsUnavailableAndNotReplayed) {
  TempPostgres& server = TempPostgres::Shared();
  const std::string url = server.NewDatabase();
  auto direct = Connect(url);
  ASSERT_TRUE(Run(*direct, "CREATE TABLE t (n BIGINT)").ok());
  Proxy proxy(server.folder(), std::string("COMMIT\0", 7));  // not READ COMMITTED
  auto db = Connect(server.UrlOf(url.substr(url.rfind('/') + 1), proxy.folder()));
  int calls = 0;
  Work work = [&calls](Transaction& tx) -> async::Task<absl::Status> {
    ++calls;
    co_return (co_await tx.Execute("INSERT INTO t VALUES (1)")).status();
  };
  const absl::Status lost = Await(db->Write(work));
  EXPECT_TRUE(absl::IsUnavailable(lost)) << lost;
  EXPECT_EQ(proxy.cuts(), 1);
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(Number(*direct, "SELECT COUNT(*) FROM t"), 1);  // it had been committed
}

TEST_F(PostgresTest, ADeadlockIsReplayed) {
  auto db = Connect(TempPostgres::Shared().NewDatabase());
  ASSERT_TRUE(Run(*db, "CREATE TABLE t (k BIGINT PRIMARY KEY, n BIGINT)").ok());
  ASSERT_TRUE(Run(*db, "INSERT INTO t VALUES (1, 0), (2, 0)").ok());
  std::atomic<int> holding = 0;
  std::atomic<int> calls = 0;
  const auto in_order = [&holding, &calls](int64_t first, int64_t second) -> Work {
    return [&holding, &calls, first, second](Transaction& tx) -> async::Task<absl::Status> {
      ++calls;
      std::vector<Value> one{first};
      PS_CO_RETURN_IF_ERROR((co_await tx.Execute("UPDATE t SET n = n + 1 WHERE k = $1", std::move(one))).status());
      ++holding;
      while (holding < 2) PS_CO_RETURN_IF_ERROR(co_await async::Sleep(absl::Milliseconds(1)));
      std::vector<Value> other{second};
      co_return (co_await tx.Execute("UPDATE t SET n = n + 1 WHERE k = $1", std::move(other))).status();
    };
  };
  absl::Status a, b;
  async::TaskScope scope(runtime_.executor());
  scope.Spawn(Into(db->Write(in_order(1, 2)), a));
  scope.Spawn(Into(db->Write(in_order(2, 1)), b));
  scope.JoinBlocking();
  EXPECT_TRUE(a.ok()) << a;
  EXPECT_TRUE(b.ok()) << b;
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(Number(*db, "SELECT MIN(n) FROM t"), 2);
}

TEST_F(PostgresTest, ASerializationFailureIsReplayedSoOften) {
  options_.replays = 3;
  auto db = Connect(TempPostgres::Shared().NewDatabase());
  ASSERT_TRUE(Run(*db,
                  "CREATE FUNCTION clash() RETURNS void AS $$ BEGIN RAISE EXCEPTION 'clash' USING ERRCODE = "
                  "'40001'; END $$ LANGUAGE plpgsql")
                  .ok());
  int calls = 0;
  Work once = [&calls](Transaction& tx) -> async::Task<absl::Status> {
    if (++calls == 1) co_return (co_await tx.Execute("SELECT clash()")).status();
    co_return absl::OkStatus();
  };
  EXPECT_TRUE(Await(db->Write(once)).ok());
  EXPECT_EQ(calls, 2);
  calls = 0;
  Work always = [&calls](Transaction& tx) -> async::Task<absl::Status> {
    ++calls;
    co_return (co_await tx.Execute("SELECT clash()")).status();
  };
  EXPECT_TRUE(absl::IsUnavailable(Await(db->Write(always))));
  EXPECT_EQ(calls, 4);
}

TEST_F(PostgresTest, DataThatIsRefusedIsInvalid) {
  auto db = Connect(TempPostgres::Shared().NewDatabase());
  ASSERT_TRUE(Run(*db, "CREATE TABLE t (k TEXT NOT NULL UNIQUE, n INTEGER CHECK (n > 0))").ok());
  const std::string insert = "INSERT INTO t VALUES ($1, $2)";
  EXPECT_TRUE(absl::IsInvalidArgument(Run(*db, insert, {std::string("a\0b", 3), int64_t{1}})));
  EXPECT_TRUE(absl::IsInvalidArgument(Run(*db, insert, {std::string("a\xff"), int64_t{1}})));
  EXPECT_TRUE(absl::IsInvalidArgument(Run(*db, insert, {std::string("a"), int64_t{1} << 40})));
  EXPECT_TRUE(absl::IsInvalidArgument(Run(*db, insert, {std::string("a"), int64_t{0}})));
  EXPECT_TRUE(absl::IsInvalidArgument(Run(*db, insert, {std::monostate{}, int64_t{1}})));
  EXPECT_TRUE(Run(*db, insert, {std::string(), std::monostate{}}).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(Run(*db, insert, {std::string(), int64_t{1}})));
  EXPECT_EQ(Number(*db, "SELECT COUNT(*) FROM t"), 1);
  EXPECT_EQ(Number(*db, "SELECT -2"), -2);
  EXPECT_EQ(Number(*db, "SELECT 1 = 1"), 1);
  const absl::Status numeric = Run(*db, "SELECT SUM(n) AS total FROM (VALUES (CAST(1 AS BIGINT))) AS v (n)");
  EXPECT_TRUE(absl::IsInternal(numeric)) << numeric;
  EXPECT_NE(numeric.ToString().find("total"), std::string::npos);
}

TEST_F(PostgresTest, AFailedTransactionIsAbortedEvenIfTheWorkClosesItsEyes) {
  auto db = Connect(TempPostgres::Shared().NewDatabase());
  ASSERT_TRUE(Run(*db, "CREATE TABLE t (n BIGINT)").ok());
  Work work = [](Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_RETURN_IF_ERROR((co_await tx.Execute("INSERT INTO t VALUES (1)")).status());
    EXPECT_FALSE((co_await tx.Execute("SELECT 1 / 0")).ok());
    EXPECT_TRUE(absl::IsAborted((co_await tx.Execute("INSERT INTO t VALUES (2)")).status()));
    co_return absl::OkStatus();
  };
  EXPECT_TRUE(absl::IsAborted(Await(db->Write(work))));
  EXPECT_EQ(Number(*db, "SELECT COUNT(*) FROM t"), 0);
}

TEST_F(PostgresTest, ATimeOutOfTheServerIsUnavailable) {
  options_.statement_timeout = absl::Milliseconds(200);
  options_.lock_timeout = absl::Milliseconds(100);
  const std::string url = TempPostgres::Shared().NewDatabase();
  auto db = Connect(url);
  EXPECT_TRUE(absl::IsUnavailable(Run(*db, "SELECT pg_sleep(60)")));
  ASSERT_TRUE(Run(*db, "CREATE TABLE t (n BIGINT)").ok());
  ASSERT_TRUE(Run(*db, "INSERT INTO t VALUES (1)").ok());
  Work work = [&](Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_RETURN_IF_ERROR((co_await tx.Execute("SELECT n FROM t FOR UPDATE")).status());
    Work other = [](Transaction& inner) -> async::Task<absl::Status> {
      co_return (co_await inner.Execute("SELECT n FROM t FOR UPDATE")).status();
    };
    absl::Status locked = co_await db->Write(other);
    EXPECT_TRUE(absl::IsUnavailable(locked)) << locked;
    co_return absl::OkStatus();
  };
  const absl::Status held = Await(db->Write(work));
  EXPECT_TRUE(held.ok()) << held;
}

TEST_F(PostgresTest, AnExchangeMayBeBiggerThanTheSocketsBuffers) {
  auto db = Connect(TempPostgres::Shared().NewDatabase());
  ASSERT_TRUE(Run(*db, "CREATE TABLE t (n BIGINT, b BYTEA)").ok());
  Work work = [](Transaction& tx) -> async::Task<absl::Status> {
    std::vector<Statement> statements;
    for (int64_t i = 0; i < 200; ++i) {
      statements.push_back({"INSERT INTO t VALUES ($1, $2) RETURNING b", {i, Blob{std::string(100'000, 'x')}}});
    }
    PS_CO_ASSIGN_OR_RETURN(std::vector<Result> results, co_await tx.ExecuteAll(std::move(statements)));
    EXPECT_EQ(results.size(), 200U);
    for (const Result& r : results) EXPECT_EQ(r.rows.at(0).Text(0).size(), 100'000U);
    co_return absl::OkStatus();
  };
  const absl::Status done = Await(db->Write(work));
  EXPECT_TRUE(done.ok()) << done;
  EXPECT_EQ(Number(*db, "SELECT COUNT(*) FROM t"), 200);
}

TEST_F(PostgresTest, WhoWaitsForAConnectionWaitsNotForever) {
  options_.connections = 1;
  options_.acquire_timeout = absl::Milliseconds(50);
  auto db = Connect(TempPostgres::Shared().NewDatabase());
  Work inner = [](Transaction& tx) -> async::Task<absl::Status> {
    co_return (co_await tx.Execute("SELECT 1")).status();
  };
  absl::Status second;
  Work outer = [&](Transaction& tx) -> async::Task<absl::Status> {
    second = co_await db->Read(inner);
    co_return (co_await tx.Execute("SELECT 1")).status();
  };
  EXPECT_TRUE(Await(db->Write(outer)).ok());
  EXPECT_TRUE(absl::IsUnavailable(second)) << second;
  EXPECT_TRUE(Await(db->Read(inner)).ok());  // the connection came back
}

TEST_F(PostgresTest, NoErrorRepeatsThePassword) {
  auto away = Connect("postgresql://user:hunter2@127.0.0.1:1/db");
  const absl::Status refused = Run(*away, "SELECT 1");
  EXPECT_TRUE(absl::IsUnavailable(refused)) << refused;
  EXPECT_EQ(refused.ToString().find("hunter2"), std::string::npos);
  const absl::Status faulty =
      OpenPostgres(runtime_.executor(), "postgresql://user:hunter2%zz@host/db", options_).status();
  EXPECT_TRUE(absl::IsInvalidArgument(faulty)) << faulty;
  EXPECT_EQ(faulty.ToString().find("hunter2"), std::string::npos);
}

TEST(StatementShape, FindsParametersAndASecondStatement) {
  EXPECT_EQ(ShapeOf("SELECT $2, $1, '$9', \"$8\" -- $7").parameters, 2U);
  EXPECT_EQ(ShapeOf("SELECT $12").parameters, 12U);
  EXPECT_TRUE(ShapeOf("SELECT ';';  ").single);
  EXPECT_FALSE(ShapeOf("SELECT 1; SELECT 2").single);
  EXPECT_TRUE(ShapeOf("DO $$ BEGIN; $1 END $$").single);
  EXPECT_EQ(ShapeOf("DO $$ BEGIN; $1 END $$").parameters, 0U);
}

}  // namespace
}  // namespace poststelle::sql
