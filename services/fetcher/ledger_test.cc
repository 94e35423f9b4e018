// What the ledger promises: one outcome a mail, duplicates seen, replies only on proof, losers of the fence refused.
#include "services/fetcher/ledger.h"

#include <gtest/gtest.h>

#include "services/fetcher/testing_ledger.h"

namespace poststelle::fetcher {
namespace {

constexpr std::string_view kEvents = "SELECT COUNT(*) FROM event";
constexpr std::string_view kTickets = "SELECT COUNT(*) FROM ticket";
constexpr std::string_view kDuplicates = "SELECT COUNT(*) FROM message WHERE state = 'duplicate'";

TEST_F(LedgerTest, PublishingTwiceMakesOneEvent) {
  ASSERT_TRUE(List(1).ok());
  const Publication mail = Mail(1, "a@example.org", "1@x", "hello");
  ASSERT_TRUE(Publish(mail).ok());
  ASSERT_TRUE(Publish(mail).ok());
  EXPECT_EQ(Count(kEvents), 1);
  EXPECT_EQ(Count(kTickets), 1);
  EXPECT_EQ(Count("SELECT SUM(last_offset) FROM partition_head"), 1);
}

TEST_F(LedgerTest, WhatWasNotListedCantBePublished) {
  EXPECT_FALSE(Publish(Mail(1, "a@example.org", "1@x", "hello")).ok());
  EXPECT_EQ(Count(kEvents), 0);
}

TEST_F(LedgerTest, TheSameMailTwiceIsOneTicketAndOneDuplicate) {
  ASSERT_TRUE(List(1).ok());
  ASSERT_TRUE(List(2, 5000).ok());
  ASSERT_TRUE(Publish(Mail(1, "a@example.org", "1@x", "hello")).ok());
  ASSERT_TRUE(Publish(Mail(2, "a@example.org", "1@x", "hello", 5000)).ok());
  EXPECT_EQ(Count(kEvents), 1);
  EXPECT_EQ(Count(kDuplicates), 1);
}

TEST_F(LedgerTest, OneMessageIdWithDifferentBytesMakesTwoTickets) {
  ASSERT_TRUE(List(1).ok());
  ASSERT_TRUE(List(2).ok());
  ASSERT_TRUE(Publish(Mail(1, "a@example.org", "1@x", "parcel one")).ok());
  ASSERT_TRUE(Publish(Mail(2, "a@example.org", "1@x", "parcel two")).ok());
  EXPECT_EQ(Count(kTickets), 2);
}

TEST_F(LedgerTest, WithoutMessageIdEqualBytesNeedEqualReceiveTimes) {
  for (uint32_t uid : {1, 2, 3}) ASSERT_TRUE(List(uid, uid == 3 ? 9000 : 1000).ok());
  ASSERT_TRUE(Publish(Mail(1, "a@example.org", "", "alarm", 1000)).ok());
  ASSERT_TRUE(Publish(Mail(2, "a@example.org", "", "alarm", 1000)).ok());
  ASSERT_TRUE(Publish(Mail(3, "a@example.org", "", "alarm", 9000)).ok());
  EXPECT_EQ(Count(kEvents), 2);
  EXPECT_EQ(Count(kDuplicates), 1);
}

TEST_F(LedgerTest, AReplyOfAParticipantJoinsAndAStrangerDoesNot) {
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

TEST_F(LedgerTest, ListingTwiceKeepsTheFirstDecision) {
  ASSERT_TRUE(List(1).ok());
  ASSERT_TRUE(Publish(Mail(1, "a@example.org", "1@x", "hello")).ok());
  ASSERT_TRUE(List(1).ok());
  EXPECT_EQ(Count("SELECT COUNT(*) FROM message WHERE state = 'published'"), 1);
}

TEST_F(LedgerTest, AMailThatComesBackWithItsOldUidValidityIsPendingAgain) {
  ASSERT_TRUE(List(1).ok());
  ASSERT_TRUE(Write([&](sql::Transaction& tx) { return CloseStalePending(tx, folder_, 8); }).ok());
  EXPECT_EQ(Count("SELECT COUNT(*) FROM message WHERE state = 'gone'"), 1);
  ASSERT_TRUE(List(1).ok());
  EXPECT_EQ(Count("SELECT COUNT(*) FROM message WHERE state = 'pending'"), 1);
}

TEST_F(LedgerTest, AnAnchorRecognisesEachOldMailOnce) {
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

TEST_F(LedgerTest, AttemptsCountProcessStartsNotTries) {
  ASSERT_TRUE(List(1).ok());
  auto count = [&](const std::string& holder) {
    std::vector<uint32_t> uids{1};
    return Write([&, uids](sql::Transaction& tx) { return CountAttempts(tx, folder_, 7, uids, holder); });
  };
  ASSERT_TRUE(count("one").ok());
  ASSERT_TRUE(count("one").ok());
  EXPECT_EQ(Count("SELECT attempts FROM message"), 1);
  ASSERT_TRUE(count("two").ok());
  EXPECT_EQ(Count("SELECT attempts FROM message"), 2);
  ASSERT_TRUE(Write([&](sql::Transaction& tx) { return UncountAttempts(tx, folder_, "two"); }).ok());
  EXPECT_EQ(Count("SELECT attempts FROM message"), 1);
}

TEST_F(LedgerTest, AWorkerThatComesBackLateIsFenced) {
  Committer late(runtime_.executor(), *database_, "late");
  Committer other(runtime_.executor(), *database_, "other");
  Hold late_hold;
  late_hold.folder = folder_;
  Hold other_hold = late_hold;
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

TEST_F(LedgerTest, AListingOnACursorThatMovedIsThrownAway) {
  Committer committer(runtime_.executor(), *database_, "me");
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

TEST_F(LedgerTest, WhatIsOpenOfAFolderThatWasLeftIsFoundAndEndsVisibly) {
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

TEST_F(LedgerTest, ARefusedUnitLeavesTheOthersCommitted) {
  Committer committer(runtime_.executor(), *database_, "me");
  Hold hold;
  hold.folder = folder_;
  ASSERT_TRUE(List(1).ok());
  ASSERT_TRUE(List(3).ok());
  std::vector<Unit> units(3);
  for (uint32_t i = 0; i < 3; ++i) {
    units[i].hold = &hold;
    Publication mail = Mail(i + 1, "a@example.org", std::to_string(i) + "@x", "mail " + std::to_string(i));
    units[i].apply = [this, mail](sql::Transaction& tx) { return fetcher::Publish(tx, mail, feed_); };
  }
  EXPECT_FALSE(Await(committer.Commit(units)).ok());  // uid 2 was never listed
  EXPECT_TRUE(units[0].result.ok());
  EXPECT_FALSE(units[1].result.ok());
  EXPECT_TRUE(units[2].result.ok());
  EXPECT_EQ(Count(kEvents), 2);
}

}  // namespace
}  // namespace poststelle::fetcher
