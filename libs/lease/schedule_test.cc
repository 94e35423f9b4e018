// The schedule against a real redis-server of its own.
#include "libs/lease/schedule.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <optional>

#include "libs/net/dialer.h"
#include "libs/redis/client.h"

namespace poststelle::lease {
namespace {

uint16_t FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  close(fd);
  return ntohs(address.sin_port);
}

template <typename T>
async::Task<void> Into(async::Task<T> task, std::optional<T>& out) {
  out.emplace(co_await std::move(task));
}

class ScheduleTest : public ::testing::Test {
 protected:
  ScheduleTest() : port_(FreePort()), redis_(runtime_.executor(), *dialer_, Server()) { StartRedis(); }
  ~ScheduleTest() override {
    redis_.Stop();
    StopRedis();
  }
  redis::Address Server() const {
    redis::Address address;
    address.host = "127.0.0.1";
    address.port = port_;
    return address;
  }
  void StartRedis() {
    server_ = fork();
    if (server_ == 0) {
      if (freopen("/dev/null", "w", stdout) == nullptr) _exit(1);
      execlp("redis-server", "redis-server", "--port", std::to_string(port_).c_str(), "--bind", "127.0.0.1", "--save",
             "", "--appendonly", "no", nullptr);
      _exit(1);
    }
    for (int i = 0; i < 100; ++i) {
      if (Await(redis_.Command({"PING"})).ok()) return;
      usleep(50'000);
    }
    ADD_FAILURE() << "redis-server did not start";
  }
  void StopRedis() {
    kill(server_, SIGKILL);
    waitpid(server_, nullptr, 0);
  }
  template <typename T>
  T Await(async::Task<T> task) {
    std::optional<T> out;
    async::RunBlocking(runtime_.executor(), Into(std::move(task), out));
    return std::move(*out);
  }
  absl::Status Register(const std::string& id) { return Await(one_.Register({{id, absl::ZeroDuration()}}, true)); }
  ClaimResult Claim(RedisSchedule& schedule, const std::string& id) {
    auto result = Await(schedule.Claim(ShardOf(id), 10));
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *result : ClaimResult{};
  }

  static constexpr absl::Duration kLease = absl::Seconds(30);
  const uint16_t port_;
  pid_t server_ = -1;
  async::Runtime runtime_{2};
  std::unique_ptr<net::Dialer> dialer_ = net::MakeTcpDialer(runtime_.executor());
  redis::Client redis_;
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
  StopRedis();
  EXPECT_FALSE(Await(one_.Claim(ShardOf("a"), 1)).ok());
  StartRedis();
  EXPECT_TRUE(Claim(one_, "a").wiped);
}

}  // namespace
}  // namespace poststelle::lease
