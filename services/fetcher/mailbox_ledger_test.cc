// What the ledger keeps of a mailbox beyond single messages: several folders, actions that are due, changed options,
// and what is left when the mailbox is deleted.
#include <gtest/gtest.h>

#include "services/fetcher/committer.h"
#include "services/fetcher/forget_mailbox.h"
#include "services/fetcher/ledger.h"
#include "services/fetcher/ledger_queries.h"
#include "services/fetcher/testing_ledger.h"

namespace poststelle::fetcher {
namespace {

class MailboxLedgerTest : public LedgerTest {
 protected:
  FolderKey In(const std::string& name) const {
    FolderKey out = folder_;
    out.folder = name;
    return out;
  }
  sql::Work WatermarkOf(const FolderKey& folder, uint32_t watermark) {
    return [folder, watermark](sql::Transaction& tx) {
      Cursor cursor;
      cursor.uid_validity = 7;
      cursor.watermark = watermark;
      return WriteCursor(tx, folder, cursor);
    };
  }
};

INSTANTIATE_TEST_SUITE_P(Engines, MailboxLedgerTest, ::testing::Values(sql::Engine::kSqlite, sql::Engine::kPostgres),
                         [](const auto& info) { return testing::EngineName(info.param); });

TEST_P(MailboxLedgerTest, EachFolderHasItsMemoryAndOneMovedCursorThrowsTheListingAway) {
  Hold hold;
  hold.folder = In("INBOX");
  hold.cursor_known = true;  // nobody has listed it yet
  hold.blamed[1] = 2;
  hold.TurnTo(In("One"));
  EXPECT_FALSE(hold.cursor_known);
  EXPECT_TRUE(hold.blamed.empty());
  hold.cursor_known = true;
  hold.TurnTo(In("INBOX"));
  EXPECT_EQ(hold.blamed[1], 2);
  EXPECT_EQ(hold.folder.folder, "INBOX");

  Committer committer(runtime_.executor(), *database_, feed_, "me");
  ASSERT_TRUE(Write(WatermarkOf(In("One"), 5)).ok());  // by somebody else meanwhile
  EXPECT_TRUE(absl::IsAborted(Await(committer.Commit(hold, WatermarkOf(In("INBOX"), 3)))));
  EXPECT_EQ(Count("SELECT COUNT(*) FROM folder_cursor WHERE folder = 'INBOX'"), 0);
  EXPECT_FALSE(hold.cursor_known);
  hold.TurnTo(In("One"));
  EXPECT_FALSE(hold.cursor_known);
  EXPECT_TRUE(Await(committer.Commit(hold, WatermarkOf(In("INBOX"), 3))).ok());
}

TEST_P(MailboxLedgerTest, WhatIsDueOnTheServerIsWrittenWithThePublication) {
  for (uint32_t uid = 1; uid <= 3; ++uid) ASSERT_TRUE(List(uid).ok());
  Publication mail = Mail(1, "a@example.org", "1@x", "hello");
  mail.after_import = "move";
  ASSERT_TRUE(Publish(mail).ok());
  ASSERT_TRUE(Publish(mail).ok());  // a lost answer
  Publication again = Mail(2, "a@example.org", "1@x", "hello");
  again.after_import = "move";
  ASSERT_TRUE(Publish(again).ok());
  ASSERT_TRUE(Publish(Mail(3, "a@example.org", "3@x", "left alone")).ok());
  EXPECT_EQ(Count("SELECT COUNT(*) FROM message WHERE state = 'duplicate'"), 1);
  EXPECT_EQ(Count("SELECT COUNT(*) FROM after_import WHERE action = 'move' AND problem = ''"), 2);
  EXPECT_EQ(Count("SELECT COUNT(*) FROM after_import WHERE uid = 3"), 0);

  // Once it is settled, a replayed publication does not make it due again.
  ASSERT_TRUE(Write([](sql::Transaction& tx) -> async::Task<absl::Status> {
                co_return (co_await tx.Execute("DELETE FROM after_import WHERE uid = 1")).status();
              }).ok());
  ASSERT_TRUE(Publish(mail).ok());
  EXPECT_EQ(Count("SELECT COUNT(*) FROM after_import"), 1);

  // A rebuilt folder gives it another UID.
  std::vector<Decision> recognised(1);
  recognised[0].uid = 100;
  recognised[0].kind = Decision::Kind::kRecognised;
  recognised[0].recognised_as = MessageIdOf(folder_, 7, 2);
  ASSERT_TRUE(Write([&](sql::Transaction& tx) { return InsertDecisions(tx, folder_, 8, recognised); }).ok());
  EXPECT_EQ(Count("SELECT COUNT(*) FROM after_import WHERE uid = 100 AND uid_validity = 8"), 1);
  EXPECT_EQ(Count("SELECT COUNT(*) FROM after_import"), 1);
}

TEST_P(MailboxLedgerTest, AnActionThatWasGivenUpStandsBesideTheOutcome) {
  ASSERT_TRUE(List(1).ok());
  Publication mail = Mail(1, "a@example.org", "1@x", "hello");
  mail.after_import = "delete";
  ASSERT_TRUE(Publish(mail).ok());
  const std::unique_ptr<blob::Store> raw = blob::MakeRowStore();
  LedgerQueries queries(*database_, *raw);
  auto before = Await(queries.OutcomesOf(folder_.mailbox, "1@x"));
  ASSERT_TRUE(before.ok());
  EXPECT_EQ(before->at(0).reason(), "");
  ASSERT_TRUE(Write([](sql::Transaction& tx) -> async::Task<absl::Status> {
                co_return (co_await tx.Execute("UPDATE after_import SET problem = 'It was not deleted.'")).status();
              }).ok());
  auto after = Await(queries.OutcomesOf(folder_.mailbox, "1@x"));
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(after->at(0).reason(), "It was not deleted.");
}

TEST_P(MailboxLedgerTest, WiderOptionsReconsiderWhatTheyMayImport) {
  std::vector<Decision> decisions(5);
  for (uint32_t i = 0; i < 5; ++i) {
    decisions[i].uid = i + 1;
    decisions[i].kind = Decision::Kind::kPassedOver;
    decisions[i].internal_date = 1000 * (i + 1);
  }
  decisions[0].rule = Decision::Rule::kAge;  // too old for the wider limit as well
  decisions[1].rule = Decision::Rule::kAge;
  decisions[2].rule = Decision::Rule::kAge;
  decisions[3].rule = Decision::Rule::kDeleted;
  decisions[4].kind = Decision::Kind::kAsRead;
  ASSERT_TRUE(Write([&](sql::Transaction& tx) { return InsertDecisions(tx, folder_, 7, decisions); }).ok());
  std::vector<PassedOver> found;
  ASSERT_TRUE(Await(database_->Read([&](sql::Transaction& tx) -> async::Task<absl::Status> {
                auto read = co_await ReadPassedOver(tx, folder_, 7, 1500);
                if (read.ok()) found = *read;
                co_return read.status();
              })).ok());
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].uid, 2u);
  EXPECT_FALSE(found[0].as_read);
  EXPECT_TRUE(found[2].as_read);
  const std::vector<uint32_t> pending{2, 5};
  const std::vector<uint32_t> as_read{3};
  ASSERT_TRUE(Write([&](sql::Transaction& tx) { return Reconsider(tx, folder_, 7, pending, as_read); }).ok());
  EXPECT_EQ(Count("SELECT COUNT(*) FROM message WHERE state = 'pending' AND historical = 1 AND uid IN (2, 5)"), 2);
  EXPECT_EQ(Count("SELECT COUNT(*) FROM message WHERE state = 'as_read' AND uid = 3"), 1);
  EXPECT_EQ(Count("SELECT COUNT(*) FROM message WHERE state = 'passed_over' AND uid IN (1, 4)"), 2);
}

TEST_P(MailboxLedgerTest, NewMailCanBeFetchedBeforeAnyBacklog) {
  std::vector<Decision> decisions(2);
  decisions[0].uid = 1;
  decisions[0].historical = true;
  decisions[1].uid = 2;
  ASSERT_TRUE(Write([&](sql::Transaction& tx) { return InsertDecisions(tx, folder_, 7, decisions); }).ok());
  for (const bool new_only : {true, false}) {
    std::vector<PendingMessage> pending;
    ASSERT_TRUE(Await(database_->Read([&](sql::Transaction& tx) -> async::Task<absl::Status> {
                  auto read = co_await ReadPending(tx, folder_, 7, new_only, 10, "me");
                  if (read.ok()) pending = *read;
                  co_return read.status();
                })).ok());
    ASSERT_EQ(pending.size(), new_only ? 1u : 2u);
    EXPECT_EQ(pending[0].uid, 2u);
  }
}

// An attempt that the listing counted is one like any other: it counts against the mail as soon as its process is dead.
TEST_P(MailboxLedgerTest, AnAttemptCanBeCountedWithTheListing) {
  std::vector<Decision> decisions(2);
  decisions[0].uid = 1;
  decisions[0].attempted = true;
  decisions[1].uid = 2;
  const auto list = [&](const std::string& holder) {
    return Write([&](sql::Transaction& tx) { return InsertDecisions(tx, folder_, 7, decisions, holder); });
  };
  std::vector<PendingMessage> pending;
  const auto read = [&](const std::string& holder) {
    return Await(database_->Read([&](sql::Transaction& tx) -> async::Task<absl::Status> {
      auto rows = co_await ReadPending(tx, folder_, 7, false, 10, holder);
      if (rows.ok()) pending = *rows;
      co_return rows.status();
    }));
  };
  ASSERT_TRUE(list("one").ok());
  ASSERT_TRUE(list("one").ok());  // a lost answer
  ASSERT_TRUE(read("one").ok());
  ASSERT_EQ(pending.size(), 2u);
  EXPECT_TRUE(pending[0].counted);
  EXPECT_EQ(pending[0].attempts, 0);  // who reads lives
  EXPECT_FALSE(pending[1].counted);
  ASSERT_TRUE(read("two").ok());
  EXPECT_FALSE(pending[0].counted);
  EXPECT_EQ(pending[0].attempts, 1);
  EXPECT_EQ(pending[1].attempts, 0);

  // What was gone and is listed again remembers the attempts before.
  const std::string reason = "deleted";
  for (const int attempts : {1, 2}) {
    ASSERT_TRUE(Write([&](sql::Transaction& tx) { return CloseAs(tx, folder_, 7, 1, "gone", reason); }).ok());
    ASSERT_TRUE(list(attempts == 1 ? "one" : "two").ok());
    EXPECT_EQ(Count("SELECT attempts FROM message WHERE uid = 1 AND state = 'pending'"), attempts);
  }
}

TEST_P(MailboxLedgerTest, ADeletedMailboxIsForgottenButForWhatItPublished) {
  std::vector<Decision> decisions(3);
  for (uint32_t i = 0; i < 3; ++i) decisions[i].uid = i + 10;
  decisions[1].kind = Decision::Kind::kAsRead;
  decisions[2].kind = Decision::Kind::kPassedOver;
  ASSERT_TRUE(Write([&](sql::Transaction& tx) { return InsertDecisions(tx, folder_, 7, decisions); }).ok());
  ASSERT_TRUE(List(1).ok());
  Publication mail = Mail(1, "a@example.org", "1@x", "hello");
  mail.after_import = "delete";
  ASSERT_TRUE(Publish(mail).ok());
  Committer committer(runtime_.executor(), *database_, feed_, "me");
  Hold late;
  late.folder = folder_;
  ASSERT_TRUE(Await(committer.Commit(late, WatermarkOf(folder_, 12))).ok());
  auto known = Await(ReadKnownMailboxes(*database_));
  ASSERT_TRUE(known.ok());
  ASSERT_EQ(known->size(), 1u);
  EXPECT_EQ(known->at(0).id, "support");
  EXPECT_EQ(known->at(0).key, folder_.mailbox.key);

  for (int i = 0; i < 2; ++i) ASSERT_TRUE(Await(ForgetMailbox(*database_, folder_.mailbox, false)).ok());
  EXPECT_EQ(Count("SELECT COUNT(*) FROM message WHERE state = 'published'"), 1);
  EXPECT_EQ(Count("SELECT COUNT(*) FROM message"), 1);
  for (const char* table : {"SELECT COUNT(*) FROM folder_cursor", "SELECT COUNT(*) FROM after_import",
                            "SELECT COUNT(*) FROM thread_reference"}) {
    EXPECT_EQ(Count(table), 0) << table;
  }
  EXPECT_EQ(Count("SELECT COUNT(*) FROM ticket"), 1);
  EXPECT_EQ(Count("SELECT COUNT(*) FROM event"), 1);
  const std::unique_ptr<blob::Store> raw = blob::MakeRowStore();
  LedgerQueries queries(*database_, *raw);
  EXPECT_TRUE(Await(queries.FindRaw(MessageIdOf(folder_, 7, 1))).ok());
  EXPECT_TRUE(Await(ReadKnownMailboxes(*database_))->empty());
  // Whoever still polls it publishes nothing more.
  EXPECT_TRUE(absl::IsAborted(Await(committer.Commit(late, WatermarkOf(folder_, 13)))));
  EXPECT_EQ(Count("SELECT COUNT(*) FROM folder_cursor"), 0);
}

}  // namespace
}  // namespace poststelle::fetcher
