// What the ledger promises: one outcome a mail, duplicates seen, replies only on proof, losers of the fence refused.
#include "services/fetcher/ledger.h"

#include <gtest/gtest.h>

#include <deque>
#include <set>

#include "libs/base/status_macros.h"
#include "services/fetcher/testing_ledger.h"

namespace poststelle::fetcher {
namespace {

INSTANTIATE_TEST_SUITE_P(Engines, LedgerTest, ::testing::Values(sql::Engine::kSqlite, sql::Engine::kPostgres),
                         [](const auto& info) { return testing::EngineName(info.param); });

constexpr std::string_view kEvents = "SELECT COUNT(*) FROM event";
constexpr std::string_view kTickets = "SELECT COUNT(*) FROM ticket";
constexpr std::string_view kDuplicates = "SELECT COUNT(*) FROM message WHERE state = 'duplicate'";

TEST_P(LedgerTest, PublishingTwiceMakesOneEvent) {
  ASSERT_TRUE(List(1).ok());
  const Publication mail = Mail(1, "a@example.org", "1@x", "hello");
  ASSERT_TRUE(Publish(mail).ok());
  ASSERT_TRUE(Publish(mail).ok());
  EXPECT_EQ(Count(kEvents), 1);
  EXPECT_EQ(Count(kTickets), 1);
  EXPECT_EQ(Count("SELECT CAST(SUM(last_offset) AS BIGINT) FROM partition_head"), 1);
}

TEST_P(LedgerTest, WhatWasNotListedCantBePublished) {
  EXPECT_FALSE(Publish(Mail(1, "a@example.org", "1@x", "hello")).ok());
  EXPECT_EQ(Count(kEvents), 0);
}

TEST_P(LedgerTest, TheSameMailTwiceIsOneTicketAndOneDuplicate) {
  ASSERT_TRUE(List(1).ok());
  ASSERT_TRUE(List(2, 5000).ok());
  ASSERT_TRUE(Publish(Mail(1, "a@example.org", "1@x", "hello")).ok());
  ASSERT_TRUE(Publish(Mail(2, "a@example.org", "1@x", "hello", 5000)).ok());
  EXPECT_EQ(Count(kEvents), 1);
  EXPECT_EQ(Count(kDuplicates), 1);
}

TEST_P(LedgerTest, OneMessageIdWithDifferentBytesMakesTwoTickets) {
  ASSERT_TRUE(List(1).ok());
  ASSERT_TRUE(List(2).ok());
  ASSERT_TRUE(Publish(Mail(1, "a@example.org", "1@x", "parcel one")).ok());
  ASSERT_TRUE(Publish(Mail(2, "a@example.org", "1@x", "parcel two")).ok());
  EXPECT_EQ(Count(kTickets), 2);
}

TEST_P(LedgerTest, WithoutMessageIdEqualBytesNeedEqualReceiveTimes) {
  for (uint32_t uid : {1, 2, 3}) ASSERT_TRUE(List(uid, uid == 3 ? 9000 : 1000).ok());
  ASSERT_TRUE(Publish(Mail(1, "a@example.org", "", "alarm", 1000)).ok());
  ASSERT_TRUE(Publish(Mail(2, "a@example.org", "", "alarm", 1000)).ok());
  ASSERT_TRUE(Publish(Mail(3, "a@example.org", "", "alarm", 9000)).ok());
  EXPECT_EQ(Count(kEvents), 2);
  EXPECT_EQ(Count(kDuplicates), 1);
}

TEST_P(LedgerTest, AReplyOfAParticipantJoinsAndAStrangerDoesNot) {
  for (uint32_t uid : {1, 2, 3}) ASSERT_TRUE(List(uid).ok());
  ASSERT_TRUE(Publish(Mail(1, "Customer@example.org", "1@x", "question")).ok());
  Publication reply = Mail(2, "customer@example.org", "2@x", "one more thing");
  reply.content.add_in_reply_to("1@x");
  ASSERT_TRUE(Publish(reply).ok());
  Publication stranger = Mail(3, "mallory@example.com", "3@x", "let me in");
  stranger.content.add_references("1@x");
  ASSERT_TRUE(Publish(stranger).ok());
  EXPECT_EQ(Count(kTickets), 2);
  EXPECT_EQ(Count("SELECT COUNT(*) FROM event WHERE type = 2"), 1);
  EXPECT_EQ(Count("SELECT MAX(message_count) FROM ticket"), 2);
}

TEST_P(LedgerTest, LongIdentifiersAreFoundToo) {
  for (uint32_t uid : {1, 2}) ASSERT_TRUE(List(uid).ok());
  // Random, so that no compression makes it fit an index.
  std::string id;
  while (id.size() < 6000) id += RandomId();
  ASSERT_TRUE(Publish(Mail(1, id + "@example.org", id, "question")).ok());
  Publication reply = Mail(2, id + "@example.org", "2@x", "one more thing");
  reply.content.add_in_reply_to(id);
  ASSERT_TRUE(Publish(reply).ok());
  EXPECT_EQ(Count(kTickets), 1);
}

TEST_P(LedgerTest, ListingTwiceKeepsTheFirstDecision) {
  ASSERT_TRUE(List(1).ok());
  ASSERT_TRUE(Publish(Mail(1, "a@example.org", "1@x", "hello")).ok());
  ASSERT_TRUE(List(1).ok());
  EXPECT_EQ(Count("SELECT COUNT(*) FROM message WHERE state = 'published'"), 1);
}

TEST_P(LedgerTest, AMailThatComesBackWithItsOldUidValidityIsPendingAgain) {
  ASSERT_TRUE(List(1).ok());
  ASSERT_TRUE(Write([&](sql::Transaction& tx) { return CloseStalePending(tx, folder_, 8); }).ok());
  EXPECT_EQ(Count("SELECT COUNT(*) FROM message WHERE state = 'gone'"), 1);
  ASSERT_TRUE(List(1).ok());
  EXPECT_EQ(Count("SELECT COUNT(*) FROM message WHERE state = 'pending'"), 1);
}

TEST_P(LedgerTest, AnAnchorRecognisesEachOldMailOnce) {
  ASSERT_TRUE(List(1).ok());
  const Publication mail = Mail(1, "a@example.org", "1@x", "hello");
  ASSERT_TRUE(Publish(mail).ok());
  std::optional<AnchorMatch> first;
  std::optional<AnchorMatch> second;
  ASSERT_TRUE(Write([&](sql::Transaction& tx) -> async::Task<absl::Status> {
                auto match = co_await MatchAnchor(tx, folder_, 8, mail.anchor, {});
                if (!match.ok()) co_return match.status();
                first = *match;
                std::vector<Decision> decisions(1);
                decisions[0].uid = 100;
                decisions[0].kind = Decision::Kind::kRecognised;
                decisions[0].recognised_as = first->message_id;
                absl::Status inserted = co_await InsertDecisions(tx, folder_, 8, decisions);
                if (!inserted.ok()) co_return inserted;
                auto again = co_await MatchAnchor(tx, folder_, 8, mail.anchor, {});
                if (!again.ok()) co_return again.status();
                second = *again;
                co_return absl::OkStatus();
              }).ok());
  EXPECT_TRUE(first.has_value());
  EXPECT_FALSE(second.has_value());
  // After a second rebuild the recognised row vouches for the mail again.
  std::optional<AnchorMatch> third;
  ASSERT_TRUE(Write([&](sql::Transaction& tx) -> async::Task<absl::Status> {
                auto match = co_await MatchAnchor(tx, folder_, 9, mail.anchor, {});
                if (match.ok()) third = *match;
                co_return match.status();
              }).ok());
  EXPECT_TRUE(third.has_value());
}

TEST_P(LedgerTest, AttemptsCountProcessStartsNotTries) {
  ASSERT_TRUE(List(1).ok());
  const std::set<std::string> ids{MessageIdOf(folder_, 7, 1)};
  auto count = [&](const std::string& holder) {
    return Write([&](sql::Transaction& tx) { return CountAttempts(tx, ids, holder); });
  };
  ASSERT_TRUE(count("one").ok());
  ASSERT_TRUE(count("one").ok());
  EXPECT_EQ(Count("SELECT attempts FROM message"), 1);
  ASSERT_TRUE(count("two").ok());
  EXPECT_EQ(Count("SELECT attempts FROM message"), 2);
  auto uncount = [&](const std::string& holder) {
    return Write([&](sql::Transaction& tx) { return UncountAttempts(tx, ids, holder); });
  };
  // "one" lost the mailbox to "two" and lives: its attempt was no death.
  ASSERT_TRUE(uncount("one").ok());
  EXPECT_EQ(Count("SELECT attempts FROM message WHERE attempt_holder = 'two'"), 1);
  ASSERT_TRUE(uncount("two").ok());
  ASSERT_TRUE(uncount("two").ok());
  EXPECT_EQ(Count("SELECT attempts FROM message WHERE attempt_holder = ''"), 0);
}

TEST_P(LedgerTest, AWorkerThatComesBackLateIsFenced) {
  Committer late(runtime_.executor(), *database_, feed_, "late");
  Committer other(runtime_.executor(), *database_, feed_, "other");
  Hold late_hold;
  late_hold.folder = folder_;
  Hold other_hold;
  other_hold.folder = folder_;
  auto touch = [&](sql::Transaction& tx) {
    Cursor cursor;
    cursor.uid_validity = 7;
    return WriteCursor(tx, folder_, cursor);
  };
  ASSERT_TRUE(Await(late.Commit(late_hold, touch)).ok());
  ASSERT_TRUE(Await(other.Commit(other_hold, touch)).ok());
  EXPECT_TRUE(absl::IsAborted(Await(late.Commit(late_hold, touch))));
  EXPECT_TRUE(late_hold.lost);
  EXPECT_TRUE(Await(other.Commit(other_hold, touch)).ok());
}

async::Task<void> CommitInto(Committer& committer, Hold& hold, absl::Status& out) {
  std::function<async::Task<absl::Status>(sql::Transaction&)> nothing =
      [](sql::Transaction&) -> async::Task<absl::Status> { co_return absl::OkStatus(); };
  out = co_await committer.Commit(hold, nothing);
}

TEST_P(LedgerTest, WhoTakesTheFenceAtOnceGetsFencesOfTheirOwn) {
  constexpr size_t kWorkers = 8;
  std::vector<std::unique_ptr<Committer>> workers;
  std::vector<Hold> holds(kWorkers);
  std::vector<absl::Status> results(kWorkers);
  for (size_t i = 0; i < kWorkers; ++i) {
    workers.push_back(std::make_unique<Committer>(runtime_.executor(), *database_, feed_, std::to_string(i)));
    holds[i].folder = folder_;
  }
  async::TaskScope scope(runtime_.executor());
  for (size_t i = 0; i < kWorkers; ++i) scope.Spawn(CommitInto(*workers[i], holds[i], results[i]));
  scope.JoinBlocking();
  std::set<int64_t> fences;
  for (size_t i = 0; i < kWorkers; ++i) {
    EXPECT_TRUE(results[i].ok()) << results[i];
    fences.insert(holds[i].fence);
  }
  EXPECT_EQ(fences.size(), kWorkers);
}

TEST_P(LedgerTest, AListingOnACursorThatMovedIsThrownAway) {
  Committer committer(runtime_.executor(), *database_, feed_, "me");
  auto move = [&](uint32_t watermark) {
    return [this, watermark](sql::Transaction& tx) {
      Cursor cursor;
      cursor.uid_validity = 7;
      cursor.watermark = watermark;
      return WriteCursor(tx, folder_, cursor);
    };
  };
  Hold stale;
  stale.folder = folder_;
  stale.cursor_known = true;  // read before anybody listed: no cursor
  Hold first;
  first.folder = folder_;
  ASSERT_TRUE(Await(committer.Commit(first, move(5))).ok());
  EXPECT_TRUE(absl::IsAborted(Await(committer.Commit(stale, move(3)))));
  EXPECT_EQ(Count("SELECT watermark FROM folder_cursor"), 5);
}

TEST_P(LedgerTest, WhatIsOpenOfAFolderThatWasLeftIsFoundAndEndsVisibly) {
  std::vector<Decision> decisions(3);
  for (uint32_t i = 0; i < 3; ++i) decisions[i].uid = i + 1;
  decisions[1].kind = Decision::Kind::kAsRead;
  decisions[2].kind = Decision::Kind::kPassedOver;
  ASSERT_TRUE(Write([&](sql::Transaction& tx) { return InsertDecisions(tx, folder_, 7, decisions); }).ok());
  FolderKey present = folder_;
  present.folder = "Other";
  std::vector<LeftFolder> left;
  auto read = [&](const FolderKey& folder) {
    return Await(database_->Read([&](sql::Transaction& tx) -> async::Task<absl::Status> {
      absl::StatusOr<std::vector<LeftFolder>> found = co_await ReadLeftFolders(tx, folder);
      if (found.ok()) left = *found;
      co_return found.status();
    }));
  };
  ASSERT_TRUE(read(folder_).ok());
  EXPECT_TRUE(left.empty());
  ASSERT_TRUE(read(present).ok());
  ASSERT_EQ(left.size(), 1u);
  EXPECT_EQ(left[0].key.folder, "INBOX");
  EXPECT_EQ(left[0].uid_validity, 7u);
  ASSERT_TRUE(Write([&](sql::Transaction& tx) { return CloseLeftFolder(tx, left[0]); }).ok());
  EXPECT_EQ(Count("SELECT COUNT(*) FROM message WHERE state = 'gone' AND uid = 1 AND reason = 'The mailbox no longer "
                  "watches the folder INBOX.'"),
            1);
  EXPECT_EQ(Count("SELECT COUNT(*) FROM message WHERE state = 'passed_over'"), 2);
}

TEST_P(LedgerTest, ARefusedUnitLeavesTheOthersCommitted) {
  Committer committer(runtime_.executor(), *database_, feed_, "me");
  Hold hold;
  hold.folder = folder_;
  ASSERT_TRUE(List(1).ok());
  ASSERT_TRUE(List(3).ok());
  std::vector<Unit> units(3);
  std::deque<Publication> mails;
  for (uint32_t i = 0; i < 3; ++i) {
    units[i].hold = &hold;
    mails.push_back(Mail(i + 1, "a@example.org", std::to_string(i) + "@x", "mail " + std::to_string(i)));
    units[i].publication = &mails.back();
  }
  EXPECT_FALSE(Await(committer.Commit(units)).ok());  // uid 2 was never listed
  EXPECT_TRUE(units[0].result.ok());
  EXPECT_FALSE(units[1].result.ok());
  EXPECT_TRUE(units[2].result.ok());
  EXPECT_EQ(Count(kEvents), 2);
}

// A thread, a mail delivered twice and a stranger, all in one transaction: as if they had come one by one.
TEST_P(LedgerTest, MailsOfOneTransactionFindEachOther) {
  for (uint32_t uid = 1; uid <= 5; ++uid) ASSERT_TRUE(List(uid).ok());
  std::vector<Publication> mails;
  mails.push_back(Mail(1, "a@example.org", "1@x", "question"));
  mails.push_back(Mail(2, "b@example.org", "2@x", "answer"));
  mails.back().content.add_in_reply_to("1@x");
  mails.back().content.mutable_from()->set_address("a@example.org");
  mails.back().content.add_cc()->set_address("c@example.org");
  mails.push_back(Mail(3, "c@example.org", "3@x", "from the one in copy"));
  mails.back().content.add_in_reply_to("2@x");
  mails.push_back(Mail(4, "a@example.org", "1@x", "question"));
  mails.push_back(Mail(5, "stranger@example.com", "5@x", "let me in"));
  mails.back().content.add_in_reply_to("1@x");
  std::vector<const Publication*> all;
  for (const Publication& mail : mails) all.push_back(&mail);
  ASSERT_TRUE(Write([&](sql::Transaction& tx) { return PublishAll(tx, all, feed_); }).ok());
  EXPECT_EQ(Count("SELECT COUNT(*) FROM ticket"), 2);
  EXPECT_EQ(Count("SELECT message_count FROM ticket ORDER BY message_count DESC LIMIT 1"), 3);
  EXPECT_EQ(Count("SELECT COUNT(*) FROM message WHERE state = 'duplicate'"), 1);
  EXPECT_EQ(Count(kEvents), 4);
  EXPECT_EQ(Count("SELECT COUNT(*) FROM partition_head h WHERE last_offset <> (SELECT COUNT(*) FROM event e WHERE "
                  "e.feed_partition = h.partition)"),
            0);
  ASSERT_TRUE(Write([&](sql::Transaction& tx) { return PublishAll(tx, all, feed_); }).ok());  // a lost answer
  EXPECT_EQ(Count(kEvents), 4);
}

// The planner takes the partial index of what is pending for tiny: what names one row must not go by it.
TEST_P(LedgerTest, OneOfManyPendingRowsIsFoundByItsKey) {
  if (GetParam() != sql::Engine::kPostgres) return;  // SQLite prefers a unique index without looking at statistics
  std::vector<Decision> decisions(300);
  for (size_t i = 0; i < decisions.size(); ++i) decisions[i].uid = static_cast<uint32_t>(i + 1);
  ASSERT_TRUE(Write([&](sql::Transaction& tx) { return InsertDecisions(tx, folder_, 7, decisions); }).ok());
  const Publication mail = Mail(150, "a@example.org", "1@x", "hello");
  const std::vector<const Publication*> one{&mail};
  int64_t read = -1;
  ASSERT_TRUE(
      Write([&](sql::Transaction& tx) -> async::Task<absl::Status> {
        PS_CO_RETURN_IF_ERROR(co_await CountAttempts(tx, {MessageIdOf(folder_, 7, 150)}, "holder"));
        PS_CO_RETURN_IF_ERROR(co_await PublishAll(tx, one, feed_));
        PS_CO_RETURN_IF_ERROR(co_await CorrectSize(tx, folder_, 7, 151, 5));
        PS_CO_RETURN_IF_ERROR(co_await CloseAs(tx, folder_, 7, 152, "gone", "", nullptr));
        PS_CO_RETURN_IF_ERROR(co_await SettleAsRead(tx, folder_, 7, {153}, {154}));
        PS_CO_ASSIGN_OR_RETURN(
            sql::Result rows,
            co_await tx.Execute("SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname "
                                "= 'message'"));
        read = rows.rows[0].Int(0);
        co_return absl::OkStatus();
      }).ok());
  EXPECT_GT(read, 0);
  EXPECT_LT(read, 30);
}

}  // namespace
}  // namespace poststelle::fetcher
