#include <gtest/gtest.h>

#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <optional>
#include <thread>

#include "libs/base/status_macros.h"
#include "libs/sql/database.h"
#include "libs/sql/insert.h"
#include "libs/testing/temp_database.h"

namespace poststelle::sql {
namespace {

class SqlTest : public ::testing::TestWithParam<Engine> {
 protected:
  const std::string& Url() const { return store_.url(); }

  static async::Task<void> Into(async::Task<absl::Status> task, absl::Status& out) { out = co_await std::move(task); }
  absl::Status Await(async::Task<absl::Status> task) {
    absl::Status out;
    async::RunBlocking(runtime_.executor(), Into(std::move(task), out));
    return out;
  }

  absl::Status Run(Database& db, std::string sql, std::vector<Value> params = {}) {
    return Await(db.Write([sql, params](Transaction& tx) -> async::Task<absl::Status> {
      co_return (co_await tx.Execute(sql, params)).status();
    }));
  }
  static async::Task<void> ReadInto(Database& db, Statement statement, absl::StatusOr<Result>& out) {
    out = co_await db.ReadOne(std::move(statement));
  }
  int64_t Number(Database& db, std::string sql) {
    int64_t number = -1;
    const absl::Status status = Await(db.Read([sql, &number](Transaction& tx) -> async::Task<absl::Status> {
      PS_CO_ASSIGN_OR_RETURN(Result r, co_await tx.Execute(sql));
      number = r.rows.at(0).Int(0);
      co_return absl::OkStatus();
    }));
    EXPECT_TRUE(status.ok()) << status;
    return number;
  }

  testing::TempDatabase store_{GetParam()};
  async::Runtime runtime_{2};
};

class SqliteTest : public SqlTest {};

const auto kName = [](const auto& info) { return testing::EngineName(info.param); };
INSTANTIATE_TEST_SUITE_P(Engines, SqlTest, ::testing::Values(Engine::kSqlite, Engine::kPostgres), kName);
INSTANTIATE_TEST_SUITE_P(Engines, SqliteTest, ::testing::Values(Engine::kSqlite), kName);

const std::vector<Migration> kSchema = {{1, "first", "CREATE TABLE t (k TEXT PRIMARY KEY, v BIGINT, b BLOB);\n"}};

Work Insert(std::string key, int64_t value) {
  return [key, value](Transaction& tx) -> async::Task<absl::Status> {
    std::vector<Value> params{key, value, Blob{std::string("\0x", 2)}};
    co_return (co_await tx.Execute("INSERT INTO t (k, v, b) VALUES ($1, $2, $3)", std::move(params))).status();
  };
}

// After a failure that left the savepoint "s" behind.
async::Task<absl::StatusOr<Result>> CountD(Transaction& tx) {
  PS_CO_RETURN_IF_ERROR(co_await tx.RollbackTo("s"));
  co_return co_await tx.Execute("SELECT COUNT(*) FROM t WHERE k IN ('c', 'd')");
}

async::Task<absl::Status> Repeat(Database& db, Work work, int times) {
  for (int i = 0; i < times; ++i) PS_CO_RETURN_IF_ERROR(co_await db.Write(work));
  co_return absl::OkStatus();
}

TEST_P(SqlTest, OneStatementIsReadWithoutATransaction) {
  auto db = Open(runtime_.executor(), Url());
  ASSERT_TRUE(db.ok()) << db.status();
  ASSERT_TRUE(Await(Migrate(**db, kSchema)).ok());
  ASSERT_TRUE(Await((*db)->Write(Insert("a", 7))).ok());
  const auto read = [this, &db](std::string_view sql, std::vector<Value> params) {
    Statement statement{sql, std::move(params)};
    absl::StatusOr<Result> out;
    async::RunBlocking(runtime_.executor(), ReadInto(**db, std::move(statement), out));
    return out;
  };
  const absl::StatusOr<Result> found = read("SELECT v FROM t WHERE k = $1", {std::string("a")});
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->rows.at(0).Int(0), 7);
  // A failure is told, and spoils nothing that comes later.
  EXPECT_FALSE(read("SELECT nothing FROM t", {}).ok());
  EXPECT_EQ(read("SELECT v FROM t WHERE k = $1", {std::string("b")})->rows.size(), 0u);
}

TEST_P(SqlTest, TypesComeBackAsTheyWent) {
  auto db = Open(runtime_.executor(), Url());
  ASSERT_TRUE(db.ok()) << db.status();
  ASSERT_TRUE(Await(Migrate(**db, kSchema)).ok());
  ASSERT_TRUE(Await((*db)->Write(Insert("ä", -5))).ok());
  absl::Status read = Await((*db)->Read([](Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_ASSIGN_OR_RETURN(Result r, co_await tx.Execute("SELECT k, v, b, NULL FROM t"));
    EXPECT_EQ(r.rows[0].Text(0), "ä");
    EXPECT_EQ(r.rows[0].Int(1), -5);
    EXPECT_EQ(r.rows[0].Text(2), std::string("\0x", 2));
    EXPECT_TRUE(r.rows[0].IsNull(3));
    EXPECT_EQ(r.rows[0].Int(3), 0);
    co_return absl::OkStatus();
  }));
  EXPECT_TRUE(read.ok()) << read;
}

TEST_P(SqlTest, ManyRowsAreFewStatements) {
  static const RowInsert kRows("INSERT INTO t (k, v, b) VALUES", 3, "ON CONFLICT DO NOTHING");
  auto db = Open(runtime_.executor(), Url());
  ASSERT_TRUE(db.ok());
  ASSERT_TRUE(Await(Migrate(**db, kSchema)).ok());
  // Twice: what is there already stays.
  for (int64_t turn = 0; turn < 2; ++turn) {
    std::vector<std::vector<Value>> rows;
    for (int64_t i = 0; i < 22; ++i) {
      rows.push_back({std::to_string(i), turn == 0 ? Value(i) : Value(), Blob{std::string("\0x", 2)}});
    }
    std::vector<Statement> statements;
    kRows.Append(std::move(rows), statements);
    EXPECT_EQ(statements.size(), 4u);  // 16, 4, 1, 1
    std::vector<Result> results;
    ASSERT_TRUE(Await((*db)->Write([&](Transaction& tx) -> async::Task<absl::Status> {
                  PS_CO_ASSIGN_OR_RETURN(results, co_await tx.ExecuteAll(statements));
                  co_return absl::OkStatus();
                })).ok());
    ASSERT_EQ(results.size(), 4u);
    EXPECT_EQ(results[0].changed, turn == 0 ? 16 : 0);
  }
  EXPECT_EQ(Number(**db, "SELECT COUNT(*) FROM t WHERE k = CAST(v AS TEXT)"), 22);
}

TEST_P(SqlTest, AViolatedKeyIsAlreadyExistsAndRollsBack) {
  auto db = Open(runtime_.executor(), Url());
  ASSERT_TRUE(db.ok());
  ASSERT_TRUE(Await(Migrate(**db, kSchema)).ok());
  ASSERT_TRUE(Await((*db)->Write(Insert("a", 1))).ok());
  absl::Status twice = Await((*db)->Write([](Transaction& tx) -> async::Task<absl::Status> {
    Work fresh = Insert("b", 1);
    PS_CO_RETURN_IF_ERROR(co_await fresh(tx));
    Work again = Insert("a", 2);
    co_return co_await again(tx);
  }));
  EXPECT_TRUE(absl::IsAlreadyExists(twice)) << twice;
  int64_t count = 0;
  ASSERT_TRUE(Await((*db)->Read([&count](Transaction& tx) -> async::Task<absl::Status> {
                PS_CO_ASSIGN_OR_RETURN(Result r, co_await tx.Execute("SELECT COUNT(*) FROM t"));
                count = r.rows[0].Int(0);
                co_return absl::OkStatus();
              })).ok());
  EXPECT_EQ(count, 1);
}

TEST_P(SqlTest, ASavepointUndoesAPart) {
  auto db = Open(runtime_.executor(), Url());
  ASSERT_TRUE(db.ok());
  ASSERT_TRUE(Await(Migrate(**db, kSchema)).ok());
  int64_t count = 0;
  ASSERT_TRUE(Await((*db)->Write([&count](Transaction& tx) -> async::Task<absl::Status> {
                Work a = Insert("a", 1);
                PS_CO_RETURN_IF_ERROR(co_await a(tx));
                PS_CO_RETURN_IF_ERROR(co_await tx.Savepoint("s"));
                Work b = Insert("b", 1);
                PS_CO_RETURN_IF_ERROR(co_await b(tx));
                PS_CO_RETURN_IF_ERROR(co_await tx.RollbackTo("s"));
                PS_CO_RETURN_IF_ERROR(co_await tx.ReleaseSavepoint("s"));
                PS_CO_ASSIGN_OR_RETURN(Result r, co_await tx.Execute("SELECT COUNT(*) FROM t"));
                count = r.rows[0].Int(0);
                co_return absl::OkStatus();
              })).ok());
  EXPECT_EQ(count, 1);
}

TEST_P(SqlTest, TwoProcessesWorthOfWritersShareAFile) {
  auto one = Open(runtime_.executor(), Url());
  auto two = Open(runtime_.executor(), Url());
  ASSERT_TRUE(one.ok() && two.ok());
  ASSERT_TRUE(Await(Migrate(**one, kSchema)).ok());
  ASSERT_TRUE(Await(Migrate(**two, kSchema)).ok());  // finds everything done
  async::TaskScope scope(runtime_.executor());
  std::vector<absl::Status> results(100);
  for (int i = 0; i < 100; ++i) {
    Database& db = i % 2 == 0 ? **one : **two;
    scope.Spawn(Into(db.Write(Insert(std::to_string(i), i)), results[static_cast<size_t>(i)]));
  }
  scope.JoinBlocking();
  for (const absl::Status& r : results) EXPECT_TRUE(r.ok()) << r;
}

TEST_P(SqlTest, ANewerSchemaIsRefused) {
  auto db = Open(runtime_.executor(), Url());
  ASSERT_TRUE(db.ok());
  std::vector<Migration> newer = kSchema;
  newer.push_back({2, "second", "CREATE TABLE u (k TEXT);\n"});
  ASSERT_TRUE(Await(Migrate(**db, newer)).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(Await(Migrate(**db, kSchema))));
}

TEST_P(SqlTest, AReaderCantWrite) {
  auto db = Open(runtime_.executor(), Url());
  ASSERT_TRUE(db.ok());
  ASSERT_TRUE(Await(Migrate(**db, kSchema)).ok());
  EXPECT_FALSE(Await((*db)->Read(Insert("a", 1))).ok());
}

TEST_P(SqliteTest, TemporaryDataNeedsNoFolder) {
  auto db = Open(runtime_.executor(), Url());
  ASSERT_TRUE(db.ok()) << db.status();
  EXPECT_EQ(Number(**db, "PRAGMA temp_store"), 2);  // MEMORY
}

TEST_P(SqliteTest, APathThatCantBeOpenedIsNamed) {
  auto db = Open(runtime_.executor(), "sqlite:/nonexistent/folder/x.db");
  ASSERT_FALSE(db.ok());
  EXPECT_NE(std::string(db.status().message()).find("/nonexistent/folder/x.db"), std::string::npos);
  EXPECT_FALSE(Open(runtime_.executor(), "mysql://x").ok());
  // The refusal does not repeat a URL: it may hold a password.
  EXPECT_EQ(Open(runtime_.executor(), "mysql://user:hunter2@host/db").status().ToString().find("hunter2"),
            std::string::npos);
}

async::Task<absl::Status> IncrementSlowly(Transaction& tx) {
  PS_CO_ASSIGN_OR_RETURN(Result r, co_await tx.Execute("SELECT n FROM counter FOR UPDATE"));
  PS_CO_RETURN_IF_ERROR(co_await async::Sleep(absl::Microseconds(50)));
  std::vector<Value> next{r.rows.at(0).Int(0) + 1};
  co_return (co_await tx.Execute("UPDATE counter SET n = $1", std::move(next))).status();
}

TEST_P(SqlTest, WorkThatSuspendsKeepsItsTurn) {
  auto db = Open(runtime_.executor(), Url());
  ASSERT_TRUE(db.ok());
  ASSERT_TRUE(Run(**db, "CREATE TABLE counter (n BIGINT)").ok());
  ASSERT_TRUE(Run(**db, "INSERT INTO counter VALUES (0)").ok());
  async::TaskScope scope(runtime_.executor());
  std::vector<absl::Status> results(50);
  for (absl::Status& result : results) scope.Spawn(Into((*db)->Write(IncrementSlowly), result));
  scope.JoinBlocking();
  for (const absl::Status& r : results) EXPECT_TRUE(r.ok()) << r;
  EXPECT_EQ(Number(**db, "SELECT n FROM counter"), 50);
}

TEST_P(SqlTest, NothingIsWrittenAfterTheTransactionEnded) {
  auto db = Open(runtime_.executor(), Url());
  ASSERT_TRUE(db.ok());
  ASSERT_TRUE(Await(Migrate(**db, kSchema)).ok());
  absl::Status swallowed = Await((*db)->Write([](Transaction& tx) -> async::Task<absl::Status> {
    EXPECT_TRUE((co_await tx.Execute("ROLLBACK")).ok());  // as SQLite does by itself when the disk is full
    Work a = Insert("a", 1);
    EXPECT_TRUE(absl::IsAborted(co_await a(tx)));
    EXPECT_TRUE(absl::IsAborted(co_await tx.Savepoint("s")));
    EXPECT_TRUE(absl::IsAborted(co_await tx.ReleaseSavepoint("s")));
    co_return absl::OkStatus();
  }));
  EXPECT_TRUE(absl::IsAborted(swallowed)) << swallowed;
  EXPECT_EQ(Number(**db, "SELECT COUNT(*) FROM t"), 0);
  EXPECT_TRUE(Await((*db)->Write(Insert("b", 1))).ok());  // the next one is not affected
}

TEST_P(SqliteTest, AFullDiskRollsBackAsAWhole) {
  auto db = Open(runtime_.executor(), Url());
  ASSERT_TRUE(db.ok());
  ASSERT_TRUE(Await(Migrate(**db, kSchema)).ok());
  absl::Status full = Await((*db)->Write([](Transaction& tx) -> async::Task<absl::Status> {
    Work first = Insert("first", 1);
    PS_CO_RETURN_IF_ERROR(co_await first(tx));
    PS_CO_RETURN_IF_ERROR((co_await tx.Execute("PRAGMA max_page_count = 20")).status());
    std::vector<Value> huge{std::string("huge"), Blob{std::string(4 << 20, 'x')}};
    absl::Status failed = (co_await tx.Execute("INSERT INTO t (k, b) VALUES ($1, $2)", std::move(huge))).status();
    EXPECT_TRUE(absl::IsUnavailable(failed)) << failed;
    Work last = Insert("last", 1);
    (void)co_await last(tx);
    co_return failed;
  }));
  EXPECT_FALSE(full.ok());
  EXPECT_EQ(Number(**db, "SELECT COUNT(*) FROM t"), 0);
}

TEST_P(SqlTest, TheWorksOwnFailureIsNotReplayed) {
  auto db = Open(runtime_.executor(), Url());
  ASSERT_TRUE(db.ok());
  int calls = 0;
  EXPECT_TRUE(absl::IsUnavailable(Await((*db)->Write([&calls](Transaction&) -> async::Task<absl::Status> {
    ++calls;
    co_return absl::UnavailableError("elsewhere");
  }))));
  EXPECT_EQ(calls, 1);
}

TEST_P(SqlTest, AStepMayHoldStatementsInAnyForm) {
  auto db = Open(runtime_.executor(), Url());
  ASSERT_TRUE(db.ok());
  const std::vector<Migration> steps = {
      {1, "one line", "CREATE TABLE a (x TEXT DEFAULT ';'); CREATE TABLE b (x TEXT);-- a; comment\n"},
      {2, "no end", "CREATE TABLE c (x TEXT); CREATE TABLE d (x TEXT DEFAULT 'BLOB', \"BLOB\" BLOB, blobs BLOB)"}};
  const absl::Status migrated = Await(Migrate(**db, steps));
  ASSERT_TRUE(migrated.ok()) << migrated;
  EXPECT_EQ(Number(**db, "SELECT COUNT(*) FROM a, b, c, d"), 0);
  ASSERT_TRUE(Run(**db, "INSERT INTO d (\"BLOB\", blobs) VALUES ($1, $1)", {Blob{std::string("\0", 1)}}).ok());
  EXPECT_EQ(Number(**db, "SELECT COUNT(*) FROM d WHERE x = 'BLOB' AND \"BLOB\" = blobs"), 1);
}

TEST_P(SqlTest, AFaultyStatementIsRefused) {
  auto db = Open(runtime_.executor(), Url());
  ASSERT_TRUE(db.ok());
  EXPECT_TRUE(absl::IsInvalidArgument(Run(**db, "SELECT $1, $2", {int64_t{1}})));
  EXPECT_TRUE(absl::IsInvalidArgument(Run(**db, "SELECT 1; SELECT 2")));
  EXPECT_TRUE(absl::IsInvalidArgument(Run(**db, " ")));
}

TEST_P(SqlTest, ChangedCountsThisStatementOnly) {
  auto db = Open(runtime_.executor(), Url());
  ASSERT_TRUE(db.ok());
  ASSERT_TRUE(Await(Migrate(**db, kSchema)).ok());
  ASSERT_TRUE(Await((*db)->Write([](Transaction& tx) -> async::Task<absl::Status> {
                PS_CO_ASSIGN_OR_RETURN(Result two, co_await tx.Execute("INSERT INTO t (k) VALUES ('a'), ('b')"));
                EXPECT_EQ(two.changed, 2);
                PS_CO_ASSIGN_OR_RETURN(Result none, co_await tx.Execute("SELECT COUNT(*) FROM t"));
                EXPECT_EQ(none.changed, 0);
                co_return absl::OkStatus();
              })).ok());
}

TEST_P(SqlTest, NoIncrementOfManyWritersIsLost) {
  constexpr int kWriters = 8;
  constexpr int kTimes = 200;
  // Two pools, as two processes have them.
  auto one = Open(runtime_.executor(), Url());
  auto two = Open(runtime_.executor(), Url());
  ASSERT_TRUE(one.ok() && two.ok());
  ASSERT_TRUE(Run(**one, "CREATE TABLE counter (n BIGINT)").ok());
  ASSERT_TRUE(Run(**one, "INSERT INTO counter VALUES (0)").ok());
  std::vector<absl::Status> results(kWriters);
  async::TaskScope scope(runtime_.executor());
  for (size_t i = 0; i < kWriters; ++i) {
    Work increment = [](Transaction& tx) -> async::Task<absl::Status> {
      PS_CO_ASSIGN_OR_RETURN(Result r, co_await tx.Execute("SELECT n FROM counter FOR UPDATE"));
      std::vector<Value> next{r.rows.at(0).Int(0) + 1};
      co_return (co_await tx.Execute("UPDATE counter SET n = $1", std::move(next))).status();
    };
    scope.Spawn(Into(Repeat(i % 2 == 0 ? **one : **two, increment, kTimes), results[i]));
  }
  scope.JoinBlocking();
  for (const absl::Status& r : results) EXPECT_TRUE(r.ok()) << r;
  EXPECT_EQ(Number(**one, "SELECT n FROM counter"), kWriters * kTimes);
}

TEST_P(SqlTest, ManyMayMigrateAtOnce) {
  std::vector<std::unique_ptr<Database>> databases;
  for (int i = 0; i < 4; ++i) {
    auto db = Open(runtime_.executor(), Url());
    ASSERT_TRUE(db.ok());
    databases.push_back(*std::move(db));
  }
  std::vector<absl::Status> results(databases.size());
  async::TaskScope scope(runtime_.executor());
  for (size_t i = 0; i < databases.size(); ++i) scope.Spawn(Into(Migrate(*databases[i], kSchema), results[i]));
  scope.JoinBlocking();
  for (const absl::Status& r : results) EXPECT_TRUE(r.ok()) << r;
}

TEST_P(SqlTest, ManyStatementsRunInOrderUntilOneFails) {
  auto db = Open(runtime_.executor(), Url());
  ASSERT_TRUE(db.ok());
  ASSERT_TRUE(Await(Migrate(**db, kSchema)).ok());
  absl::Status done = Await((*db)->Write([](Transaction& tx) -> async::Task<absl::Status> {
    constexpr std::string_view kInsert = "INSERT INTO t (k, v) VALUES ($1, $2)";
    std::vector<Statement> good{{kInsert, {std::string("a"), int64_t{1}}},
                                {kInsert, {std::string("b"), int64_t{2}}},
                                {"SELECT v FROM t ORDER BY k FOR UPDATE", {}}};
    PS_CO_ASSIGN_OR_RETURN(std::vector<Result> results, co_await tx.ExecuteAll(std::move(good)));
    EXPECT_EQ(results.size(), 3U);
    EXPECT_EQ(results.at(1).changed, 1);
    EXPECT_EQ(results.at(2).rows.size(), 2U);
    EXPECT_EQ(results.at(2).rows.at(1).Int(0), 2);
    PS_CO_RETURN_IF_ERROR(co_await tx.Savepoint("s"));
    std::vector<Statement> bad{{kInsert, {std::string("c"), int64_t{1}}},
                               {kInsert, {std::string("a"), int64_t{1}}},
                               {kInsert, {std::string("d"), int64_t{1}}}};
    EXPECT_TRUE(absl::IsAlreadyExists((co_await tx.ExecuteAll(std::move(bad))).status()));
    PS_CO_ASSIGN_OR_RETURN(Result d, co_await CountD(tx));
    EXPECT_EQ(d.rows.at(0).Int(0), 0);
    co_return absl::OkStatus();
  }));
  EXPECT_TRUE(done.ok()) << done;
}

TEST_P(SqliteTest, OthersCantReadTheFile) {
  auto db = Open(runtime_.executor(), Url());
  ASSERT_TRUE(db.ok());
  ASSERT_TRUE(Await(Migrate(**db, kSchema)).ok());
  for (const auto& file : std::filesystem::directory_iterator(store_.folder())) {
    struct stat info{};
    ASSERT_EQ(stat(file.path().c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0077, 0U) << file.path();
  }
}

TEST_P(SqliteTest, ManyMayOpenANewFileAtOnce) {
  std::atomic<int> failed = 0;
  for (int round = 0; round < 10; ++round) {
    std::vector<std::thread> openers;
    for (int i = 0; i < 6; ++i) {
      openers.emplace_back([&failed, this, url = Url() + std::to_string(round)] {
        const auto db = Open(runtime_.executor(), url);
        if (!db.ok()) ++failed;
      });
    }
    for (std::thread& opener : openers) opener.join();
  }
  EXPECT_EQ(failed, 0);
}

}  // namespace
}  // namespace poststelle::sql
