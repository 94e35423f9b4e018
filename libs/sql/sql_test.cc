#include <gtest/gtest.h>

#include <filesystem>
#include <optional>

#include "libs/base/ids.h"
#include "libs/base/status_macros.h"
#include "libs/sql/database.h"

namespace poststelle::sql {
namespace {

class SqlTest : public ::testing::Test {
 protected:
  SqlTest() : directory_(std::filesystem::temp_directory_path() / ("poststelle-sql-" + RandomId())) {
    std::filesystem::create_directory(directory_);
  }
  ~SqlTest() override { std::filesystem::remove_all(directory_); }

  std::string Url() const { return "sqlite:" + (directory_ / "test.db").string(); }

  static async::Task<void> Into(async::Task<absl::Status> task, absl::Status& out) { out = co_await std::move(task); }
  absl::Status Await(async::Task<absl::Status> task) {
    absl::Status out;
    async::RunBlocking(runtime_.executor(), Into(std::move(task), out));
    return out;
  }

  std::filesystem::path directory_;
  async::Runtime runtime_{2};
};

const std::vector<Migration> kSchema = {{1, "first", "CREATE TABLE t (k TEXT PRIMARY KEY, v BIGINT, b BLOB);\n"}};

Work Insert(std::string key, int64_t value) {
  return [key, value](Transaction& tx) -> async::Task<absl::Status> {
    std::vector<Value> params{key, value, Blob{std::string("\0x", 2)}};
    co_return (co_await tx.Execute("INSERT INTO t (k, v, b) VALUES ($1, $2, $3)", std::move(params))).status();
  };
}

TEST_F(SqlTest, TypesComeBackAsTheyWent) {
  auto db = Open(Url());
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

TEST_F(SqlTest, AViolatedKeyIsAlreadyExistsAndRollsBack) {
  auto db = Open(Url());
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

TEST_F(SqlTest, ASavepointUndoesAPart) {
  auto db = Open(Url());
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

TEST_F(SqlTest, TwoProcessesWorthOfWritersShareAFile) {
  auto one = Open(Url());
  auto two = Open(Url());
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

TEST_F(SqlTest, ANewerSchemaIsRefused) {
  auto db = Open(Url());
  ASSERT_TRUE(db.ok());
  std::vector<Migration> newer = kSchema;
  newer.push_back({2, "second", "CREATE TABLE u (k TEXT);\n"});
  ASSERT_TRUE(Await(Migrate(**db, newer)).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(Await(Migrate(**db, kSchema))));
}

TEST_F(SqlTest, AReaderCantWrite) {
  auto db = Open(Url());
  ASSERT_TRUE(db.ok());
  ASSERT_TRUE(Await(Migrate(**db, kSchema)).ok());
  EXPECT_FALSE(Await((*db)->Read(Insert("a", 1))).ok());
}

TEST_F(SqlTest, APathThatCantBeOpenedIsNamed) {
  auto db = Open("sqlite:/nonexistent/folder/x.db");
  ASSERT_FALSE(db.ok());
  EXPECT_NE(std::string(db.status().message()).find("/nonexistent/folder/x.db"), std::string::npos);
  EXPECT_FALSE(Open("mysql://x").ok());
}

}  // namespace
}  // namespace poststelle::sql
