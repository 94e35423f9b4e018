// Keys change under the store on either engine: nothing is lost, and nothing is stored under a key that went.
#include "services/config/key_rotation.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "libs/base/ids.h"
#include "libs/base/reason.h"
#include "libs/testing/await.h"
#include "libs/testing/temp_database.h"
#include "services/config/key_state.h"
#include "services/config/mailbox_service.h"
#include "services/config/mailbox_store.h"

namespace poststelle::config {
namespace {

class KeyRotationTest : public ::testing::TestWithParam<sql::Engine> {
 protected:
  KeyRotationTest() {
    std::filesystem::create_directory(folder_);
    auto opened = sql::Open(runtime_.executor(), store_url_.url());
    if (!opened.ok()) throw std::runtime_error(opened.status().ToString());
    database_ = *std::move(opened);
    EXPECT_TRUE(Await(sql::Migrate(*database_, ConfigMigrations())).ok());
    store_ = std::make_unique<MailboxStore>(*database_, 1000);
    EXPECT_TRUE(Await(store_->Epoch()).ok());
    vault_ = *secrets::Vault::OpenOrCreate(KeyFile());
    rotation_ = std::make_unique<KeyRotation>(*database_, *vault_, 3);
  }
  ~KeyRotationTest() override { std::filesystem::remove_all(folder_); }

  template <typename T>
  T Await(async::Task<T> task) {
    return testing::Await(runtime_, std::move(task));
  }
  std::string KeyFile() const { return (folder_ / "config.key").string(); }

  // A mailbox whose password is its id, sealed with `vault`.
  StoredMailbox Mailbox(const std::string& id, const secrets::Vault& vault) {
    StoredMailbox out;
    out.mailbox.set_name("mailboxes/" + id);
    out.mailbox.set_display_name("Box " + id);
    out.mailbox.mutable_password_authentication();
    out.sealed_password = *vault.Seal(SecretString(id), PasswordRecord(id));
    return out;
  }
  absl::Status Create(const std::string& id, const secrets::Vault& vault, const std::string& request_id = "") {
    RequestMark mark;
    mark.id = request_id;
    mark.hash = *vault.KeyedHash(SecretString(request_id), "test");
    mark.is_same = [](const std::string&) { return absl::OkStatus(); };
    return Await(store_->Create(Mailbox(id, vault), mark)).status();
  }
  std::string AddKey() {
    const std::string id = secrets::KeyFileEditor::NewId(absl::Now());
    EXPECT_TRUE((*secrets::KeyFileEditor::Open(KeyFile()))->AddFirst(id).ok());
    return id;
  }
  void ExpectOpens(const std::string& id) {
    auto found = Await(store_->Get(id));
    ASSERT_TRUE(found.ok());
    auto secret = vault_->Open(found->sealed_password, PasswordRecord(id));
    ASSERT_TRUE(secret.ok()) << id << ": " << secret.status();
    EXPECT_EQ(secret->Reveal(), id);
  }

  const std::filesystem::path folder_ = std::filesystem::temp_directory_path() / ("poststelle-rotation-" + RandomId());
  testing::TempDatabase store_url_{GetParam()};
  async::Runtime runtime_{2};
  std::unique_ptr<sql::Database> database_;
  std::unique_ptr<MailboxStore> store_;
  std::unique_ptr<secrets::Vault> vault_;
  std::unique_ptr<KeyRotation> rotation_;
};

TEST_P(KeyRotationTest, EverySecretMovesToTheFirstKeyAndNothingElseOfItsMailboxChanges) {
  const std::string old = vault_->FirstKey();
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(Create(absl::StrCat("box-", i), *vault_).ok());
  const std::string etag = Await(store_->Get("box-3"))->mailbox.etag();
  const int64_t revision = Await(store_->ReadSnapshot())->revision;
  const std::string fresh = AddKey();
  auto done = Await(rotation_->ResealAll());
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_EQ(done->rewritten, 10);
  EXPECT_EQ(done->already, 0);
  EXPECT_TRUE(done->unreadable.empty());
  auto use = Await(rotation_->Usage());
  ASSERT_TRUE(use.ok());
  EXPECT_EQ((*use)[fresh].secrets, 10);
  EXPECT_EQ((*use)[old].secrets, 0);
  for (int i = 0; i < 10; ++i) ExpectOpens(absl::StrCat("box-", i));
  EXPECT_EQ(Await(store_->Get("box-3"))->mailbox.etag(), etag);
  EXPECT_EQ(Await(store_->ReadSnapshot())->revision, revision);
  auto again = Await(rotation_->ResealAll());
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->rewritten, 0);
  EXPECT_EQ(again->already, 10);
}

TEST_P(KeyRotationTest, WhatCantBeOpenedStaysAndIsNamedAndTheRestMoves) {
  ASSERT_TRUE(Create("readable", *vault_).ok());
  auto other = secrets::Vault::OpenOrCreate((folder_ / "other.key").string());
  ASSERT_TRUE(other.ok());
  ASSERT_TRUE(Create("lost", **other).ok());
  const std::string sealed = Await(store_->Get("lost"))->sealed_password;
  AddKey();
  auto done = Await(rotation_->ResealAll());
  ASSERT_TRUE(done.ok());
  EXPECT_EQ(done->rewritten, 1);
  EXPECT_EQ(done->unreadable, std::vector<std::string>{"mailboxes/lost"});
  EXPECT_EQ(Await(store_->Get("lost"))->sealed_password, sealed);
}

TEST_P(KeyRotationTest, OnlyKeysThatSealNothingAreRetiredAndNeverTheFirst) {
  const std::string old = vault_->FirstKey();
  ASSERT_TRUE(Create("one-box", *vault_, "request-1").ok());
  const std::string fresh = AddKey();
  auto retired = Await(rotation_->Retire({fresh, old}));
  ASSERT_TRUE(retired.ok()) << retired.status();
  EXPECT_TRUE(retired->keys.empty());
  ASSERT_TRUE(Await(rotation_->ResealAll()).ok());
  EXPECT_EQ((*Await(rotation_->Usage()))[old].requests, 1);
  retired = Await(rotation_->Retire({fresh, old}));
  ASSERT_TRUE(retired.ok());
  EXPECT_EQ(retired->keys, std::vector<std::string>{old});
  EXPECT_EQ(retired->forgotten_requests, 1);
  EXPECT_EQ((*Await(rotation_->Usage()))[old].requests, 0);
}

TEST_P(KeyRotationTest, NothingIsStoredUnderARetiredKeyAnyMore) {
  const std::string copy = (folder_ / "copy.key").string();
  std::filesystem::copy_file(KeyFile(), copy);
  ASSERT_EQ(chmod(copy.c_str(), 0600), 0);
  auto late = secrets::Vault::Open(copy);  // a process that does not see the change
  ASSERT_TRUE(late.ok());
  ASSERT_TRUE(Create("one-box", *vault_).ok());
  AddKey();
  ASSERT_TRUE(Await(rotation_->ResealAll()).ok());
  ASSERT_EQ(Await(rotation_->Retire({(*late)->FirstKey()}))->keys.size(), 1u);
  const absl::Status created = Create("new-box", **late);
  EXPECT_TRUE(absl::IsUnavailable(created)) << created;
  EXPECT_EQ(ReasonOf(created), "KEY_RETIRED");
  const StoredMailbox next = Mailbox("one-box", **late);
  EXPECT_EQ(ReasonOf(Await(store_->Update(next, Await(store_->Get("one-box"))->mailbox.etag())).status()),
            "KEY_RETIRED");
  ExpectOpens("one-box");
  // Neither does a rotation with the old file.
  KeyRotation backwards(*database_, **late);
  EXPECT_EQ(Await(backwards.ResealAll())->unreadable.size(), 1u);
  ASSERT_TRUE(Create("new-box", *vault_).ok());
}

TEST_P(KeyRotationTest, UpdatesBesideARotationNeitherLoseASecretNorBringAnOldSealBack) {
  constexpr int kBoxes = 30;
  for (int i = 0; i < kBoxes; ++i) ASSERT_TRUE(Create(absl::StrCat("box-", i), *vault_).ok());
  const std::string old = vault_->FirstKey();
  // Definitions change and keep the password that is there, all the while.
  std::atomic<bool> over{false};
  std::thread writer([&] {
    for (int n = 0; !over; ++n) {
      const std::string id = absl::StrCat("box-", n % kBoxes);
      StoredMailbox next = *Await(store_->Get(id));
      next.sealed_password.clear();
      next.mailbox.set_enabled(!next.mailbox.enabled());
      const std::string etag = next.mailbox.etag();
      EXPECT_TRUE(Await(store_->Update(std::move(next), etag)).ok());
    }
  });
  for (int turn = 0; turn < 3; ++turn) {
    AddKey();
    auto done = Await(rotation_->ResealAll());
    EXPECT_TRUE(done.ok()) << done.status();
    EXPECT_EQ(done->rewritten, kBoxes);
  }
  over = true;
  writer.join();
  auto use = Await(rotation_->Usage());
  EXPECT_EQ((*use)[vault_->FirstKey()].secrets, kBoxes);
  EXPECT_EQ((*use)[old].secrets, 0);
  for (int i = 0; i < kBoxes; ++i) ExpectOpens(absl::StrCat("box-", i));
}

TEST_P(KeyRotationTest, AnUnfinishedRotationIsRemembered) {
  EXPECT_EQ(*Await(UnfinishedRotation(*database_)), "");
  ASSERT_TRUE(Await(BeginRotation(*database_, "one")).ok());
  ASSERT_TRUE(Await(BeginRotation(*database_, "two")).ok());
  EXPECT_EQ(*Await(UnfinishedRotation(*database_)), "two");
  ASSERT_TRUE(Await(EndRotation(*database_)).ok());
  EXPECT_EQ(*Await(UnfinishedRotation(*database_)), "");
}

INSTANTIATE_TEST_SUITE_P(Engines, KeyRotationTest, ::testing::Values(sql::Engine::kSqlite, sql::Engine::kPostgres),
                         [](const auto& engine) {
                           return engine.param == sql::Engine::kSqlite ? "Sqlite" : "Postgres";
                         });

}  // namespace
}  // namespace poststelle::config
