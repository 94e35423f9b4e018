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
