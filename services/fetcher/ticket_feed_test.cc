#include "services/fetcher/ticket_feed.h"

#include <gtest/gtest.h>

#include "services/fetcher/testing_ledger.h"

namespace poststelle::fetcher {
namespace {

TEST_P(LedgerTest, ASecondSubscriberWaitsAndTakesOverWhenTheFirstLeaves) {
  TicketFeed feed(*database_, feed_);
  auto first = Await(feed.Take("desk", "a", false));
  ASSERT_TRUE(first.ok() && first->has_value());
  auto second = Await(feed.Take("desk", "b", false));
  ASSERT_TRUE(second.ok());
  EXPECT_FALSE(second->has_value());
  ASSERT_TRUE(Await(feed.Leave("desk", (*first)->generation)).ok());
  second = Await(feed.Take("desk", "b", false));
  ASSERT_TRUE(second.ok() && second->has_value());
  EXPECT_GT((*second)->generation, (*first)->generation);
  EXPECT_TRUE(absl::IsAborted(Await(feed.Keep("desk", "a", (*first)->generation))));
}

TEST_P(LedgerTest, AcknowledgementsAreCumulativeAndCheckedAgainstTheGeneration) {
  ASSERT_TRUE(List(1).ok());
  ASSERT_TRUE(Publish(Mail(1, "a@example.org", "1@x", "hello")).ok());
  TicketFeed feed(*database_, feed_);
  auto heads = Await(feed.Heads());
  ASSERT_TRUE(heads.ok());
  int partition = -1;
  for (auto [p, offset] : *heads) {
    if (offset == 1) partition = p;
  }
  ASSERT_GE(partition, 0);
  auto grant = Await(feed.Take("desk", "a", false));
  ASSERT_TRUE(grant.ok() && grant->has_value());
  const int64_t generation = (*grant)->generation;
  auto page = Await(feed.ReadPartition(partition, 0, 10));
  ASSERT_TRUE(page.ok());
  ASSERT_EQ(page->events.size(), 1u);
  EXPECT_EQ(page->events[0].message().subject(), "hello");
  EXPECT_TRUE(absl::IsInvalidArgument(Await(feed.Acknowledge("desk", generation, partition, 2))));
  EXPECT_TRUE(absl::IsAborted(Await(feed.Acknowledge("desk", generation + 1, partition, 1))));
  EXPECT_TRUE(Await(feed.Acknowledge("desk", generation, partition, 1)).ok());
  ASSERT_TRUE(Await(feed.Leave("desk", generation)).ok());
  auto resumed = Await(feed.Take("desk", "b", false));
  ASSERT_TRUE(resumed.ok() && resumed->has_value());
  EXPECT_EQ((*resumed)->acknowledged[partition], 1);
}

}  // namespace
}  // namespace poststelle::fetcher
