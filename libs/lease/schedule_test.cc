// The schedule against a real redis-server of its own.
#include "libs/lease/schedule.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <mutex>
#include <optional>
#include <set>

#include "libs/lease/connection_limits.h"
#include "libs/lease/finish_queue.h"
#include "libs/net/dialer.h"
#include "libs/redis/client.h"
#include "libs/testing/await.h"
#include "libs/testing/redis_server.h"

namespace poststelle::lease {
namespace {

async::Task<bool> Swept(ConnectionLimits& limits) {
  co_await limits.Sweep();
  co_return true;
}

async::Task<void> StoreStatus(async::Task<absl::Status> task, absl::Status& out) { out = co_await std::move(task); }

namespace testing = ::poststelle::testing;

class ScheduleTest : public ::testing::Test {
 protected:
  template <typename T>
  T Await(async::Task<T> task) {
    return testing::Await(runtime_, std::move(task));
  }
  absl::Status Register(const std::string& id) {
    return Await(one_.Register({Member{id, absl::ZeroDuration(), false}}, true));
  }
  ClaimResult Claim(RedisSchedule& schedule, const std::string& id) {
    auto result = Await(schedule.Claim(ShardOf(id), 10, true));
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *result : ClaimResult{};
  }

  // Ends the poll of "a", which is to be due again after `delay`.
  absl::Status End(RedisSchedule& schedule, absl::Duration delay, bool keep = true) {
    std::vector<Finished> finished{{"a", absl::Now() + delay, keep}};
    return Await(schedule.Done(finished));
  }

  // Claims until it is this one's turn.
  ClaimResult ClaimPatiently(RedisSchedule& schedule, const std::string& id) {
    ClaimResult result;
    for (int i = 0; i < 500 && result.claims.empty(); ++i) {
      usleep(10'000);
      result = Claim(schedule, id);
    }
    return result;
  }

  static constexpr absl::Duration kLease = absl::Seconds(30);
  testing::RedisServer server_;
  async::Runtime runtime_{2};
  std::unique_ptr<net::Dialer> dialer_ =
      net::MakeTcpDialer(net::MakeResolver(runtime_.executor()), net::EgressPolicy::Unrestricted());
  redis::Client redis_{runtime_.executor(), *dialer_, redis::ParseUrl(server_.url()).value()};
  RedisSchedule one_{runtime_.executor(), redis_, "one", kLease};
  RedisSchedule two_{runtime_.executor(), redis_, "two", kLease};
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
  ASSERT_TRUE(End(one_, absl::ZeroDuration(), true).ok());
  ClaimResult again = Claim(one_, "a");
  ASSERT_EQ(again.claims.size(), 1u);
  EXPECT_TRUE(again.claims[0].unbroken);
  ASSERT_TRUE(End(one_, absl::ZeroDuration(), true).ok());
  // While it is late, others come.
  EXPECT_TRUE(Claim(two_, "a").claims.empty());
  ClaimResult taken = ClaimPatiently(two_, "a");
  ASSERT_EQ(taken.claims.size(), 1u);
  EXPECT_GE(taken.claims[0].late, Schedule::kGrace);
  EXPECT_TRUE(Claim(one_, "a").claims.empty());
}

TEST_F(ScheduleTest, ADeadHoldersMailboxBecomesDueByItself) {
  RedisSchedule dead(runtime_.executor(), redis_, "dead", absl::Milliseconds(50));
  ASSERT_TRUE(Register("a").ok());
  ASSERT_EQ(Claim(dead, "a").claims.size(), 1u);
  ClaimResult taken = ClaimPatiently(two_, "a");
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
  ASSERT_TRUE(End(one_, absl::Hours(1)).ok());
  EXPECT_EQ(Claim(one_, "a").claims.size(), 1u);
}

TEST_F(ScheduleTest, AnIntervalOfAWeekIsKept) {
  ASSERT_TRUE(Register("a").ok());
  ASSERT_EQ(Claim(one_, "a").claims.size(), 1u);
  ASSERT_TRUE(End(one_, absl::Hours(24 * 7)).ok());
  EXPECT_GT(Claim(one_, "a").next_due_in.value_or(absl::ZeroDuration()), absl::Hours(24 * 6));
}

TEST_F(ScheduleTest, ReleaseHandsOverAtOnceAndRemoveForgets) {
  ASSERT_TRUE(Register("a").ok());
  ASSERT_EQ(Claim(one_, "a").claims.size(), 1u);
  ASSERT_TRUE(End(one_, absl::ZeroDuration(), false).ok());
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
  EXPECT_FALSE(Await(one_.Claim(ShardOf("a"), 1, true)).ok());
  server_.Start();
  EXPECT_TRUE(Claim(one_, "a").wiped);
}

TEST_F(ScheduleTest, WhatAGoneWorkerHeldIsAnybodysAtOnce) {
  ASSERT_TRUE(Register("a").ok());
  ASSERT_EQ(Claim(one_, "a").claims.size(), 1u);
  ASSERT_TRUE(End(one_, absl::ZeroDuration(), true).ok());
  EXPECT_TRUE(Claim(two_, "a").claims.empty());
  ASSERT_TRUE(Await(one_.Leave()).ok());
  EXPECT_EQ(Claim(two_, "a").claims.size(), 1u);
}

TEST_F(ScheduleTest, WhoHoldsItsShareLeavesWhatIsGivenUpToTheHungry) {
  ASSERT_TRUE(Register("a").ok());
  auto full = Await(one_.Claim(ShardOf("a"), 10, false));
  ASSERT_TRUE(full.ok()) << full.status();
  EXPECT_TRUE(full->claims.empty());
  ClaimResult hungry = Claim(two_, "a");
  ASSERT_EQ(hungry.claims.size(), 1u);
  EXPECT_EQ(hungry.members, 1);
  EXPECT_EQ(hungry.held, 1);
  EXPECT_EQ(hungry.workers, 2);
  ASSERT_TRUE(End(two_, absl::ZeroDuration(), false).ok());
  EXPECT_EQ(Await(two_.Claim(ShardOf("a"), 0, true))->held, 0);
  // Nobody hungry comes: then the full one.
  EXPECT_EQ(ClaimPatiently(one_, "a").claims.size(), 1u);
}

TEST_F(ScheduleTest, AfterAWipeAHolderTakesItsPlaceAgainOverWhatOthersProposed) {
  ASSERT_TRUE(Register("a").ok());
  ASSERT_EQ(Claim(one_, "a").claims.size(), 1u);
  ASSERT_TRUE(Await(redis_.Command({"FLUSHALL"})).ok());
  ASSERT_TRUE(Await(two_.Register({Member{"a", absl::ZeroDuration(), false}}, true)).ok());
  ASSERT_TRUE(Await(one_.Register({Member{"a", absl::Hours(1), true}}, true)).ok());
  EXPECT_TRUE(Claim(two_, "a").claims.empty());
  EXPECT_EQ(Await(one_.Renew({"a"})).value(), std::vector<RenewAnswer>{RenewAnswer::kRenewed});
}

TEST_F(ScheduleTest, AChangeWhileItIsIdleMakesItDueAtOnce) {
  ASSERT_TRUE(Register("a").ok());
  ASSERT_EQ(Claim(one_, "a").claims.size(), 1u);
  ASSERT_TRUE(End(one_, absl::Seconds(5)).ok());
  ASSERT_TRUE(Await(two_.Touch("a")).ok());
  EXPECT_EQ(Claim(one_, "a").claims.size(), 1u);
}

TEST_F(ScheduleTest, ARenewalThatOvertakesTheEndBringsNothingForward) {
  ASSERT_TRUE(Register("a").ok());
  ASSERT_EQ(Claim(one_, "a").claims.size(), 1u);
  ASSERT_TRUE(End(one_, absl::Hours(1)).ok());
  ASSERT_TRUE(Await(one_.Renew({"a"})).ok());
  EXPECT_GT(Claim(one_, "a").next_due_in.value_or(absl::ZeroDuration()), absl::Minutes(50));
}

TEST_F(ScheduleTest, WhatIsPolledWithoutAClaimCanBeRenewed) {
  ASSERT_TRUE(Register("a").ok());
  ASSERT_EQ(Claim(one_, "a").claims.size(), 1u);
  ASSERT_TRUE(End(one_, absl::ZeroDuration()).ok());
  EXPECT_EQ(Await(one_.Renew({"a"})).value(), std::vector<RenewAnswer>{RenewAnswer::kRenewed});
  EXPECT_GT(Claim(one_, "a").next_due_in.value_or(absl::ZeroDuration()), absl::Seconds(20));
  ASSERT_TRUE(Await(two_.Touch("a")).ok());  // it counts as running
  EXPECT_TRUE(Claim(one_, "a").claims.empty());
}

// Ids in `count` different shards.
std::vector<std::string> InDifferentShards(size_t count) {
  std::vector<std::string> out;
  std::set<int> seen;
  for (int i = 0; out.size() < count; ++i) {
    const std::string id = "m" + std::to_string(i);
    if (seen.insert(ShardOf(id)).second) out.push_back(id);
  }
  return out;
}

TEST_F(ScheduleTest, AShardThatFailsKeepsTheOthersFromNothing) {
  const std::vector<std::string> ids = InDifferentShards(kShards);
  const std::string broken = ids[3];
  const std::string turns = "poststelle:{s" + std::to_string(ShardOf(broken)) + "}:turns";
  ASSERT_TRUE(Await(redis_.Command({"SET", turns, "no sorted set"})).ok());
  std::vector<Member> members;
  for (const std::string& id : ids) members.push_back({id, absl::ZeroDuration(), false});
  EXPECT_FALSE(Await(one_.Register(members, true)).ok());
  std::vector<Finished> finished;
  for (const std::string& id : ids) {
    if (id != broken) EXPECT_EQ(Claim(one_, id).claims.size(), 1u) << id;
    finished.push_back({id, absl::Now() + absl::Hours(1), true});
  }
  EXPECT_FALSE(Await(one_.Done(finished)).ok());
  ASSERT_EQ(finished.size(), 1u);
  EXPECT_EQ(finished[0].id, broken);
  for (const std::string& id : ids) {
    if (id == broken) continue;
    EXPECT_GT(Claim(one_, id).next_due_in.value_or(absl::ZeroDuration()), absl::Minutes(50)) << id;
  }
  ASSERT_TRUE(Await(redis_.Command({"DEL", turns})).ok());
  ASSERT_TRUE(Await(one_.Register(members, true)).ok());
  EXPECT_EQ(Claim(one_, broken).claims.size(), 1u);
}

TEST_F(ScheduleTest, WorkersFillTheScheduleTogether) {
  std::vector<Member> members;
  for (int i = 0; i < 20'000; ++i) members.push_back({"m" + std::to_string(i), absl::Hours(1), false});
  members[0].mine = true;
  absl::Status first, second;
  async::TaskScope both(runtime_.executor());
  both.Spawn(StoreStatus(one_.Register(members, true), first));
  both.Spawn(StoreStatus(two_.Register(members, true), second));
  both.JoinBlocking();
  EXPECT_TRUE(first.ok() && second.ok()) << first << second;
  int64_t count = 0;
  for (int shard = 0; shard < kShards; ++shard) {
    auto claimed = Await(one_.Claim(shard, 0, true));
    ASSERT_TRUE(claimed.ok());
    EXPECT_FALSE(claimed->wiped);
    count += claimed->members;
  }
  EXPECT_EQ(count, 20'000);
}

TEST_F(ScheduleTest, WhoDiesWhileFillingIsReplaced) {
  const std::string shard = "poststelle:{s" + std::to_string(ShardOf("a")) + "}:";
  ASSERT_TRUE(Await(redis_.Command({"SET", shard + "filling", "dead", "PX", "300"})).ok());
  ASSERT_TRUE(Register("a").ok());
  EXPECT_EQ(Claim(one_, "a").claims.size(), 1u);
}

TEST_F(ScheduleTest, AnEndThatCouldNotBeToldIsToldAgain) {
  ASSERT_TRUE(Register("a").ok());
  ASSERT_EQ(Claim(one_, "a").claims.size(), 1u);
  std::mutex mutex;
  int failed = 0;
  int told = 0;
  FinishQueue queue(runtime_.executor(), one_, [&](const absl::Status& status) {
    std::lock_guard lock(mutex);
    ++(status.ok() ? told : failed);
  });
  auto seen = [&](const int& count, int least) {
    for (int i = 0; i < 3000; ++i) {
      {
        std::lock_guard lock(mutex);
        if (count >= least) return true;
      }
      usleep(10'000);
    }
    return false;
  };
  // Redis refuses to write for a while.
  ASSERT_TRUE(Await(redis_.Command({"CONFIG", "SET", "min-replicas-to-write", "1"})).ok());
  async::TaskScope scope(runtime_.executor());
  scope.Spawn(queue.Run());
  queue.Add({"a", absl::Now() + absl::Hours(1), true});
  EXPECT_TRUE(seen(failed, 1));
  ASSERT_TRUE(Await(redis_.Command({"CONFIG", "SET", "min-replicas-to-write", "0"})).ok());
  EXPECT_TRUE(seen(told, 1));
  EXPECT_GT(Claim(one_, "a").next_due_in.value_or(absl::ZeroDuration()), absl::Minutes(50));
  queue.Close();
  scope.JoinBlocking();
}

class ConnectionLimitsTest : public ScheduleTest {
 protected:
  static ConnectionLimitOptions Options() {
    ConnectionLimitOptions options;
    options.per_host = 3;
    options.per_account = 2;
    options.lease = absl::Milliseconds(600);
    return options;
  }
  absl::StatusOr<ConnectionLimits::Permit> Take(ConnectionLimits& limits, const std::string& account,
                                                absl::Duration patience = absl::Milliseconds(10)) {
    return Await(limits.Acquire("mail.example.org", account, patience));
  }
  ConnectionLimits here_{runtime_.executor(), redis_, "here", Options()};
  ConnectionLimits there_{runtime_.executor(), redis_, "there", Options()};
};

TEST_F(ConnectionLimitsTest, WorkersTogetherKeepToHostAndAccount) {
  auto one = Take(here_, "a");
  auto two = Take(there_, "a");
  ASSERT_TRUE(one.ok() && two.ok());
  EXPECT_TRUE(absl::IsResourceExhausted(Take(here_, "a").status()));  // the account
  auto three = Take(here_, "b");
  ASSERT_TRUE(three.ok());
  EXPECT_TRUE(absl::IsResourceExhausted(Take(there_, "c").status()));  // the host
  // A place that is freed here is found there, once its holder has given it back.
  *three = ConnectionLimits::Permit();
  usleep(1'100'000);
  Await(Swept(here_));
  EXPECT_TRUE(Take(there_, "c", absl::Seconds(5)).ok());
}

TEST_F(ConnectionLimitsTest, ADeadWorkersConnectionsAreForgotten) {
  std::vector<ConnectionLimits::Permit> held;
  for (const char* account : {"a", "b", "c"}) {
    auto permit = Take(here_, account);
    ASSERT_TRUE(permit.ok());
    held.push_back(*std::move(permit));
  }
  EXPECT_FALSE(Take(there_, "d").ok());
  EXPECT_TRUE(Take(there_, "d", absl::Seconds(10)).ok());  // nobody renews for "here"
}

TEST_F(ConnectionLimitsTest, WithoutRedisEachWorkerKeepsToTheLimitsByItself) {
  server_.Kill();
  auto one = Take(here_, "a", absl::Seconds(10));
  auto two = Take(here_, "a", absl::Seconds(10));
  EXPECT_TRUE(one.ok() && two.ok());
  EXPECT_TRUE(absl::IsResourceExhausted(Take(here_, "a").status()));
  server_.Start();
}

}  // namespace
}  // namespace poststelle::lease
