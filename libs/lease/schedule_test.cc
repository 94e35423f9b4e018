// The schedule against a real redis-server of its own.
#include "libs/lease/schedule.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "libs/net/dialer.h"
#include "libs/redis/client.h"
#include "libs/testing/await.h"
#include "libs/testing/redis_server.h"

namespace poststelle::lease {
namespace {

namespace testing = ::poststelle::testing;

class ScheduleTest : public ::testing::Test {
 protected:
  template <typename T>
  T Await(async::Task<T> task) {
    return testing::Await(runtime_, std::move(task));
  }
  absl::Status Register(const std::string& id) { return Await(one_.Register({{id, absl::ZeroDuration()}}, true)); }
  ClaimResult Claim(RedisSchedule& schedule, const std::string& id) {
    auto result = Await(schedule.Claim(ShardOf(id), 10));
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *result : ClaimResult{};
  }

  static constexpr absl::Duration kLease = absl::Seconds(30);
  testing::RedisServer server_;
  async::Runtime runtime_{2};
  std::unique_ptr<net::Dialer> dialer_ = net::MakeTcpDialer(runtime_.executor());
  redis::Client redis_{runtime_.executor(), *dialer_, redis::ParseUrl(server_.url()).value()};
  RedisSchedule one_{redis_, "one", kLease};
  RedisSchedule two_{redis_, "two", kLease};
};

TEST_F(ScheduleTest, OneClaimsWhatIsDueAndTheOtherDoesNot) {
  ASSERT_TRUE(Register("a").ok());
  ClaimResult mine = Claim(one_, "a");
  ASSERT_EQ(mine.claims.size(), 1u);
  EXPECT_FALSE(mine.claims[0].unbroken);
  EXPECT_FALSE(mine.wiped);
  EXPECT_TRUE(Claim(two_, "a").claims.empty());
  ASSERT_TRUE(mine.next_due_in.has_value());
  EXPECT_GT(*mine.next_due_in, kLease - absl::Seconds(5));
}

TEST_F(ScheduleTest, TheFormerHolderIsToldThatNobodyCameBetween) {
  ASSERT_TRUE(Register("a").ok());
  ASSERT_EQ(Claim(one_, "a").claims.size(), 1u);
  ASSERT_TRUE(Await(one_.Done("a", absl::ZeroDuration())).ok());
  ClaimResult again = Claim(one_, "a");
  ASSERT_EQ(again.claims.size(), 1u);
  EXPECT_TRUE(again.claims[0].unbroken);
  ASSERT_TRUE(Await(one_.Done("a", absl::ZeroDuration())).ok());
  ASSERT_EQ(Claim(two_, "a").claims.size(), 1u);
  EXPECT_FALSE(Claim(one_, "a").claims.size());
}

TEST_F(ScheduleTest, ADeadHoldersMailboxBecomesDueByItself) {
  RedisSchedule dead(redis_, "dead", absl::Milliseconds(50));
  ASSERT_TRUE(Register("a").ok());
  ASSERT_EQ(Claim(dead, "a").claims.size(), 1u);
  ClaimResult taken;
  for (int i = 0; i < 100 && taken.claims.empty(); ++i) {
    usleep(10'000);
    taken = Claim(two_, "a");
  }
  ASSERT_EQ(taken.claims.size(), 1u);
  EXPECT_FALSE(taken.claims[0].unbroken);
}

TEST_F(ScheduleTest, RenewTellsRenewedLostAndAbsent) {
  ASSERT_TRUE(Register("a").ok());
  ASSERT_EQ(Claim(one_, "a").claims.size(), 1u);
  EXPECT_EQ(Await(one_.Renew({"a", "never"})).value(),
            (std::vector<RenewAnswer>{RenewAnswer::kRenewed, RenewAnswer::kAbsent}));
  EXPECT_EQ(Await(two_.Renew({"a"})).value(), std::vector<RenewAnswer>{RenewAnswer::kLost});
}

TEST_F(ScheduleTest, AChangeDuringAPollMakesItDueAtItsEnd) {
  ASSERT_TRUE(Register("a").ok());
  ASSERT_EQ(Claim(one_, "a").claims.size(), 1u);
  ASSERT_TRUE(Await(two_.Touch("a")).ok());
  EXPECT_TRUE(Claim(two_, "a").claims.empty());
  ASSERT_TRUE(Await(one_.Done("a", absl::Hours(1))).ok());
  EXPECT_EQ(Claim(one_, "a").claims.size(), 1u);
}

TEST_F(ScheduleTest, AnIntervalOfAWeekIsKept) {
  ASSERT_TRUE(Register("a").ok());
  ASSERT_EQ(Claim(one_, "a").claims.size(), 1u);
  ASSERT_TRUE(Await(one_.Done("a", absl::Hours(24 * 7))).ok());
  EXPECT_GT(Claim(one_, "a").next_due_in.value_or(absl::ZeroDuration()), absl::Hours(24 * 6));
}

TEST_F(ScheduleTest, ReleaseHandsOverAtOnceAndRemoveForgets) {
  ASSERT_TRUE(Register("a").ok());
  ASSERT_EQ(Claim(one_, "a").claims.size(), 1u);
  ASSERT_TRUE(Await(one_.Release("a")).ok());
  EXPECT_EQ(Claim(two_, "a").claims.size(), 1u);
  ASSERT_TRUE(Await(two_.Remove("a")).ok());
  EXPECT_FALSE(Claim(two_, "a").next_due_in.has_value());
}

TEST_F(ScheduleTest, AWipeIsNoticedAndForgottenScriptsAreSentAgain) {
  ASSERT_TRUE(Register("a").ok());
  EXPECT_FALSE(Claim(one_, "a").wiped);
  ASSERT_TRUE(Await(redis_.Command({"SCRIPT", "FLUSH"})).ok());
  EXPECT_FALSE(Claim(one_, "a").wiped);
  ASSERT_TRUE(Await(redis_.Command({"FLUSHALL"})).ok());
  EXPECT_TRUE(Claim(one_, "a").wiped);
  EXPECT_EQ(Await(one_.Renew({"a"})).value(), std::vector<RenewAnswer>{RenewAnswer::kAbsent});
}

TEST_F(ScheduleTest, ARestartOfRedisIsSurvived) {
  ASSERT_TRUE(Register("a").ok());
  server_.Kill();
  EXPECT_FALSE(Await(one_.Claim(ShardOf("a"), 1)).ok());
  server_.Start();
  EXPECT_TRUE(Claim(one_, "a").wiped);
}

}  // namespace
}  // namespace poststelle::lease
