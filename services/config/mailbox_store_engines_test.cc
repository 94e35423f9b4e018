// The store on either engine, and what it promises to writers that come at once.
#include "services/config/mailbox_store.h"

#include <gtest/gtest.h>

#include "libs/base/status_macros.h"
#include "libs/testing/temp_database.h"

namespace poststelle::config {
namespace {

template <typename T>
async::Task<void> StoreResult(async::Task<T> task, std::optional<T>& out) {
  out.emplace(co_await std::move(task));
}

RequestMark Mark() {
  RequestMark mark;
  mark.id = "request-1";
  mark.hash = "hash";
  mark.is_same = [](const std::string& stored) {
    return stored == "hash" ? absl::OkStatus() : absl::InvalidArgumentError("another request");
  };
  return mark;
}

class MailboxStoreTest : public ::testing::TestWithParam<sql::Engine> {
 protected:
  MailboxStoreTest() {
    auto opened = sql::Open(runtime_.executor(), store_url_.url());
    if (!opened.ok()) throw std::runtime_error(opened.status().ToString());
    database_ = *std::move(opened);
    const absl::Status migrated = Await(sql::Migrate(*database_, ConfigMigrations()));
    EXPECT_TRUE(migrated.ok()) << migrated;
    store_ = std::make_unique<MailboxStore>(*database_, 1000);
    EXPECT_TRUE(Await(store_->Epoch()).ok());
  }

  template <typename T>
  T Await(async::Task<T> task) {
    std::optional<T> out;
    async::RunBlocking(runtime_.executor(), StoreResult(std::move(task), out));
    return std::move(*out);
  }

  static StoredMailbox Mailbox(const std::string& id) {
    StoredMailbox out;
    out.mailbox.set_name("mailboxes/" + id);
    out.mailbox.set_display_name("Box " + id);
    out.mailbox.set_enabled(true);
    out.sealed_password = std::string("\0sealed\xff", 8);
    return out;
  }

  testing::TempDatabase store_url_{GetParam()};
  async::Runtime runtime_{2};
  std::unique_ptr<sql::Database> database_;
  std::unique_ptr<MailboxStore> store_;
};

INSTANTIATE_TEST_SUITE_P(Engines, MailboxStoreTest, ::testing::Values(sql::Engine::kSqlite, sql::Engine::kPostgres),
                         [](const auto& info) { return testing::EngineName(info.param); });

TEST_P(MailboxStoreTest, AMailboxLivesThroughItsStates) {
  auto created = Await(store_->Create(Mailbox("a"), Mark()));
  ASSERT_TRUE(created.ok()) << created.status();
  auto again = Await(store_->Create(Mailbox("a"), Mark()));
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->etag(), created->etag());
  EXPECT_TRUE(absl::IsAlreadyExists(Await(store_->Create(Mailbox("a"), {})).status()));
  auto got = Await(store_->Get("a"));
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->sealed_password, std::string("\0sealed\xff", 8));
  StoredMailbox changed = *got;
  changed.mailbox.set_display_name("Another");
  auto updated = Await(store_->Update(changed, created->etag()));
  ASSERT_TRUE(updated.ok()) << updated.status();
  EXPECT_TRUE(absl::IsAborted(Await(store_->Update(changed, created->etag())).status()));
  auto list = Await(store_->List({}, "", 10));
  ASSERT_TRUE(list.ok());
  EXPECT_EQ(list->size(), 1U);
  EXPECT_TRUE(Await(store_->Delete("a", updated->etag())).ok());
  auto changes = Await(store_->ReadChanges(0));
  ASSERT_TRUE(changes.ok());
  EXPECT_EQ(changes->size(), 3U);
}

TEST_P(MailboxStoreTest, ChangesAtOnceTakeTurns) {
  constexpr int kChanges = 16;
  std::vector<std::optional<absl::StatusOr<v1::Mailbox>>> results(kChanges);
  async::TaskScope scope(runtime_.executor());
  for (int i = 0; i < kChanges; ++i) {
    scope.Spawn(StoreResult(store_->Create(Mailbox("box" + std::to_string(i)), {}), results[static_cast<size_t>(i)]));
  }
  scope.JoinBlocking();
  for (const auto& result : results) EXPECT_TRUE(result->ok()) << result->status();
  auto changes = Await(store_->ReadChanges(0));
  ASSERT_TRUE(changes.ok());
  ASSERT_EQ(changes->size(), static_cast<size_t>(kChanges));
  for (int i = 0; i < kChanges; ++i) EXPECT_EQ((*changes)[static_cast<size_t>(i)].revision, i + 1);
}

TEST_P(MailboxStoreTest, OfTwoUpdatesAtOnceOneWins) {
  auto created = Await(store_->Create(Mailbox("a"), {}));
  ASSERT_TRUE(created.ok());
  StoredMailbox next = Mailbox("a");
  std::vector<std::optional<absl::StatusOr<v1::Mailbox>>> results(8);
  async::TaskScope scope(runtime_.executor());
  for (auto& result : results) scope.Spawn(StoreResult(store_->Update(next, created->etag()), result));
  scope.JoinBlocking();
  int won = 0;
  for (const auto& result : results) won += result->ok() ? 1 : 0;
  EXPECT_EQ(won, 1);
}

}  // namespace
}  // namespace poststelle::config
