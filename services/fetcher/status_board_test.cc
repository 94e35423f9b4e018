#include "services/fetcher/status_board.h"

#include <gtest/gtest.h>

#include "libs/base/status_macros.h"
#include "services/fetcher/testing_ledger.h"

namespace poststelle::fetcher {
namespace {

class StatusBoardTest : public LedgerTest {
 protected:
  // What the row says.
  v1::MailboxStatus Written() {
    v1::MailboxStatus status;
    const absl::Status read = Await(database_->Read([&](sql::Transaction& tx) -> async::Task<absl::Status> {
      PS_CO_ASSIGN_OR_RETURN(sql::Result rows, co_await tx.Execute("SELECT status FROM mailbox_status"));
      if (!rows.rows.empty()) status.ParseFromString(rows.rows[0].Text(0));
      co_return absl::OkStatus();
    }));
    EXPECT_TRUE(read.ok()) << read;
    return status;
  }
  int64_t LastPoll() { return Written().last_poll_time().seconds(); }
  void Flush(StatusBoard& board) {
    const absl::Status flushed = Await(board.Flush());
    EXPECT_TRUE(flushed.ok()) << flushed;
  }
  MailboxCatalog catalog_;
};

INSTANTIATE_TEST_SUITE_P(Engines, StatusBoardTest, ::testing::Values(sql::Engine::kSqlite, sql::Engine::kPostgres),
                         [](const auto& info) { return testing::EngineName(info.param); });

TEST_P(StatusBoardTest, TheLastPollStandsWhoeverWritesLast) {
  StatusBoard before(*database_, catalog_);
  StatusBoard after(*database_, catalog_);
  before.PollStarted("support", absl::FromUnixSeconds(100));
  after.PollStarted("support", absl::FromUnixSeconds(200));
  Flush(after);
  EXPECT_EQ(LastPoll(), 200);
  Flush(before);  // it was stopped, or its turn to write came later
  EXPECT_EQ(LastPoll(), 200);
  before.PollStarted("support", absl::FromUnixSeconds(300));
  Flush(before);
  EXPECT_EQ(LastPoll(), 300);
}

TEST_P(StatusBoardTest, WhoHasOnlyBegunKeepsWhatTheOneBeforeSaw) {
  StatusBoard before(*database_, catalog_);
  StatusBoard after(*database_, catalog_);
  before.PollStarted("support", absl::FromUnixSeconds(100));
  before.PollSucceeded("support", absl::FromUnixSeconds(100), absl::FromUnixSeconds(160), "");
  Flush(before);
  after.PollStarted("support", absl::FromUnixSeconds(200));
  Flush(after);
  EXPECT_EQ(LastPoll(), 200);
  EXPECT_EQ(Written().last_success_time().seconds(), 100);
  EXPECT_EQ(Written().state(), v1::MailboxStatus::STATE_OK);
  config::v1::Mailbox mailbox;
  mailbox.set_name("mailboxes/support");
  mailbox.set_enabled(true);
  auto got = Await(after.Get(mailbox));
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->last_success_time().seconds(), 100);
  after.PollFailed("support", "AUTH", "no", absl::FromUnixSeconds(200));
  Flush(after);
  EXPECT_EQ(Written().last_success_time().seconds(), 100);
  EXPECT_EQ(Written().state(), v1::MailboxStatus::STATE_FAILING);
}

// More rows than go into one statement, and a number that no size of statement divides.
TEST_P(StatusBoardTest, ManyMailboxesGoOutTogether) {
  constexpr int kMailboxes = 199;
  StatusBoard board(*database_, catalog_);
  for (int n = 0; n < kMailboxes; ++n) {
    const std::string id = "box-" + std::to_string(n);
    FolderKey folder = folder_;
    folder.mailbox.id = id;
    folder.mailbox.key = id + "@1";
    Cursor cursor;
    cursor.uid_validity = 7;
    cursor.reference_ms = 1000;
    ASSERT_TRUE(Write([&](sql::Transaction& tx) { return WriteCursor(tx, folder, cursor); }).ok());
    board.PollStarted(id, absl::FromUnixSeconds(100 + n));
    board.ListingCompleted(folder, 2000 + n);
  }
  Flush(board);
  EXPECT_EQ(Count("SELECT count(*) FROM mailbox_status"), kMailboxes);
  EXPECT_EQ(Count("SELECT count(*) FROM folder_cursor WHERE reference_time = 2000 + "
                  "CAST(substr(mailbox_key, 5, length(mailbox_key) - 6) AS bigint)"),
            kMailboxes);
  // Read back, and together with what was written: nothing is exchanged between mailboxes.
  StatusBoard other(*database_, catalog_);
  for (int n = 0; n < kMailboxes; ++n) other.PollStarted("box-" + std::to_string(n), absl::FromUnixSeconds(50));
  Flush(other);
  StatusBoard again(*database_, catalog_);
  ASSERT_TRUE(Await(again.Load()).ok());
  for (int n = 0; n < kMailboxes; ++n) {
    config::v1::Mailbox mailbox;
    mailbox.set_name("mailboxes/box-" + std::to_string(n));
    mailbox.set_enabled(true);
    const auto got = Await(again.Get(mailbox));
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(got->last_poll_time().seconds(), 100 + n);
  }
}

TEST_P(StatusBoardTest, WhatIsKnownAtTheEndIsWritten) {
  StatusBoard board(*database_, catalog_);
  async::TaskScope scope(runtime_.executor());
  scope.Spawn(board.FlushLoop());
  board.PollStarted("support", absl::FromUnixSeconds(100));
  scope.Cancel();
  scope.JoinBlocking();
  EXPECT_EQ(LastPoll(), 100);
}

}  // namespace
}  // namespace poststelle::fetcher
