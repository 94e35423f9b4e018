#include "services/fetcher/listing_windows.h"

#include <gtest/gtest.h>

#include <set>

namespace poststelle::fetcher {
namespace {

ListedMessage Message(uint32_t uid, uint64_t size = 100) {
  ListedMessage message;
  message.mail.uid = uid;
  message.mail.size = size;
  message.mail.internal_date = 1000;
  return message;
}

std::vector<uint32_t> UidsOf(const std::vector<ListedMessage>& messages) {
  std::vector<uint32_t> uids;
  for (const ListedMessage& m : messages) uids.push_back(m.mail.uid);
  return uids;
}

TEST(ListingAnswer, SortsAndDropsWhatIsToldTwiceOrWasNotAskedFor) {
  ListingAnswer answer({5, 9});
  for (uint32_t uid : {9, 4, 7, 5, 7, 10}) answer.Add(Message(uid));
  auto taken = answer.Take();
  ASSERT_TRUE(taken.ok());
  EXPECT_EQ(UidsOf(*taken), (std::vector<uint32_t>{5, 7, 9}));
  EXPECT_FALSE(answer.cut());
}

TEST(ListingAnswer, AUidOfTwoMessagesIsAnError) {
  ListingAnswer answer({1, imap::kMaxUid});
  answer.Add(Message(7, 100));
  answer.Add(Message(7, 101));
  auto taken = answer.Take();
  EXPECT_EQ(imap::GetErrorKind(taken.status()), imap::ErrorKind::kProtocol);
  EXPECT_EQ(taken.status().message(), "the server lists two messages with the UID 7.");
}

TEST(ListingAnswer, KeepsTheLowestOfAnAnswerThatIsTooLong) {
  for (const bool ascending : {true, false}) {
    ListingAnswer answer({1, imap::kMaxUid}, 10);
    for (uint32_t i = 1; i <= 1000; ++i) answer.Add(Message(ascending ? i : 1001 - i));
    auto taken = answer.Take();
    ASSERT_TRUE(taken.ok());
    EXPECT_EQ(UidsOf(*taken), (std::vector<uint32_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}));
    EXPECT_TRUE(answer.cut());
    EXPECT_EQ(answer.highest(), 1000u);
  }
}

TEST(ListingAnswer, WhatIsIncompleteIsAskedForOnceMoreAndNeverLeftOut) {
  ListingAnswer answer({1, imap::kMaxUid});
  answer.AddIncomplete(3, "RFC822.SIZE");
  answer.Add(Message(3));
  answer.Add(Message(4));
  answer.AddIncomplete(4, "RFC822.SIZE and INTERNALDATE");  // a flag changed
  EXPECT_FALSE(answer.TakeIncomplete());
  answer.AddIncomplete(5, "INTERNALDATE");
  answer.AddIncomplete(8, "INTERNALDATE");
  auto range = answer.TakeIncomplete();
  ASSERT_TRUE(range);
  EXPECT_EQ(range->from, 5u);
  EXPECT_EQ(range->to, 8u);
  answer.Add(Message(5));
  answer.AddIncomplete(8, "INTERNALDATE");
  EXPECT_EQ(answer.Take().status().message(), "the server lists message 8 without INTERNALDATE.");
}

TEST(ListingAnswer, ManyIncompleteOnesAreBoundedAndNotForgotten) {
  ListingAnswer answer({1, 1000}, 10);
  for (uint32_t uid = 1; uid <= 900; ++uid) answer.AddIncomplete(uid, "RFC822.SIZE");
  auto range = answer.TakeIncomplete();
  ASSERT_TRUE(range);
  EXPECT_EQ(range->to, 1000u);
  for (uint32_t uid = 1; uid <= 900; ++uid) answer.AddIncomplete(uid, "RFC822.SIZE");
  EXPECT_FALSE(answer.Take().ok());
}

// Lists `there` as a server would answer; returns the commands it took.
int Commands(const std::set<uint32_t>& there, ListingWindows windows, size_t kept, bool& all, size_t& longest) {
  std::set<uint32_t> listed;
  int commands = 0;
  while (auto range = windows.Next()) {
    if (++commands > 10000) break;
    ListingAnswer answer(*range, kept);
    size_t length = 0;
    for (auto it = there.lower_bound(range->from); it != there.end() && *it <= range->to; ++it, ++length) {
      answer.Add(Message(*it));
    }
    longest = std::max(longest, length);
    auto taken = answer.Take();
    for (const ListedMessage& m : *taken) listed.insert(m.mail.uid);
    if (answer.cut()) {
      windows.AnsweredCut(taken->back().mail.uid, answer.highest());
    } else {
      windows.Answered(taken->size());
    }
  }
  all = listed == there;
  return commands;
}

TEST(ListingWindows, ASmallFolderIsListedInOneGo) {
  bool all = false;
  size_t longest = 0;
  EXPECT_EQ(Commands({1, 4'000'000'000}, ListingWindows(0, 4'000'000'001, 2), 20000, all, longest), 1);
  EXPECT_TRUE(all);
}

TEST(ListingWindows, ASparseFolderTakesFewCommands) {
  std::set<uint32_t> there;
  for (uint32_t i = 0; i < 300; ++i) there.insert(1 + i * 10'000'000);
  bool all = false;
  size_t longest = 0;
  EXPECT_LT(Commands(there, ListingWindows(0, *there.rbegin() + 1, 300, 100), 100, all, longest), 30);
  EXPECT_TRUE(all);
}

TEST(ListingWindows, BehindAGapWindowsAreNarrowAgain) {
  std::set<uint32_t> there{1};
  for (uint32_t i = 0; i < 10'000; ++i) there.insert(3'000'000'000 + i);
  bool all = false;
  size_t longest = 0;
  EXPECT_LT(Commands(there, ListingWindows(0, 3'000'010'000, 10'001, 100), 100, all, longest), 150);
  EXPECT_TRUE(all);
}

TEST(ListingWindows, WithoutUidNextEverythingIsListed) {
  std::set<uint32_t> there;
  for (uint32_t i = 1; i <= 1000; ++i) there.insert(i);
  bool all = false;
  size_t longest = 0;
  EXPECT_LT(Commands(there, ListingWindows(0, 0, 1000, 100), 100, all, longest), 15);
  EXPECT_TRUE(all);
}

TEST(ListingWindows, OfAHugeFolderNoWindowBringsMoreThanASessionTakes) {
  ListingWindows windows(0, 4'000'000'000, 2'000'000);
  uint64_t widest = 0;
  for (int i = 0; i < 50; ++i) {
    auto range = windows.Next();
    ASSERT_TRUE(range);
    widest = std::max<uint64_t>(widest, range->to - range->from + 1);
    windows.Answered(0);
  }
  EXPECT_EQ(widest, 500'000u);
}

TEST(ListingWindows, NothingComesBehindTheLastUid) { EXPECT_FALSE(ListingWindows(imap::kMaxUid, 0, 5).Next()); }

}  // namespace
}  // namespace poststelle::fetcher
