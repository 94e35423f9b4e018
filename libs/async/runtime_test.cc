#include "libs/async/runtime.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace poststelle::async {
namespace {

Task<void> SleepAndCount(absl::Duration duration, std::atomic<int>* done, std::atomic<int>* cancelled) {
  const absl::Status status = co_await Sleep(duration);
  if (absl::IsCancelled(status)) ++*cancelled;
  ++*done;
}

TEST(TaskScope, CancelEndsSleepsAndJoinWaitsForAll) {
  Runtime runtime(3);
  TaskScope scope(runtime.executor());
  std::atomic<int> done = 0;
  std::atomic<int> cancelled = 0;
  for (int i = 0; i < 100; ++i) scope.Spawn(SleepAndCount(absl::Hours(1), &done, &cancelled));
  EXPECT_EQ(scope.size(), 100u);
  scope.Cancel();
  scope.JoinBlocking();
  EXPECT_EQ(done, 100);
  EXPECT_EQ(cancelled, 100);
  EXPECT_TRUE(scope.cancelled());
}

TEST(TaskScope, TaskSpawnedAfterCancelSeesItAtOnce) {
  Runtime runtime(2);
  TaskScope scope(runtime.executor());
  std::atomic<int> done = 0;
  std::atomic<int> cancelled = 0;
  scope.Cancel();
  scope.Spawn(SleepAndCount(absl::Hours(1), &done, &cancelled));
  scope.JoinBlocking();
  EXPECT_EQ(cancelled, 1);
}

TEST(TaskScope, CancelRacesWithSpawn) {
  Runtime runtime(3);
  for (int round = 0; round < 200; ++round) {
    TaskScope scope(runtime.executor());
    std::atomic<int> done = 0;
    std::atomic<int> cancelled = 0;
    std::thread spawner([&] {
      for (int i = 0; i < 20; ++i) scope.Spawn(SleepAndCount(absl::Hours(1), &done, &cancelled));
    });
    scope.Cancel();
    spawner.join();
    scope.JoinBlocking();
    ASSERT_EQ(done, 20);
  }
}

TEST(TaskScope, JoinsFromACoroutine) {
  Runtime runtime(2);
  TaskScope scope(runtime.executor());
  std::atomic<int> done = 0;
  std::atomic<int> cancelled = 0;
  scope.Spawn(SleepAndCount(absl::Milliseconds(20), &done, &cancelled));
  RunBlocking(runtime.executor(), scope.Join());
  EXPECT_EQ(done, 1);
  EXPECT_EQ(cancelled, 0);
}

Task<void> WaitOn(Event* event, absl::Duration timeout, absl::Status* result) {
  *result = co_await event->Wait(timeout);
}

TEST(Event, NotifyBeforeWaitIsKeptOnce) {
  Runtime runtime(1);
  Event event(runtime.executor());
  event.Notify();
  event.Notify();
  absl::Status first;
  absl::Status second;
  RunBlocking(runtime.executor(), WaitOn(&event, absl::Seconds(10), &first));
  RunBlocking(runtime.executor(), WaitOn(&event, absl::Milliseconds(5), &second));
  EXPECT_TRUE(first.ok());
  EXPECT_TRUE(absl::IsDeadlineExceeded(second)) << second;
}

Task<void> PingPong(Event* mine, Event* other, int rounds, std::atomic<int>* bad) {
  for (int i = 0; i < rounds; ++i) {
    other->Notify();
    const absl::Status status = co_await mine->Wait(absl::Seconds(20));
    if (!status.ok()) ++*bad;
  }
  other->Notify();
}

TEST(Event, NeverLosesANotification) {
  Runtime runtime(3);
  TaskScope scope(runtime.executor());
  Event a(runtime.executor());
  Event b(runtime.executor());
  std::atomic<int> bad = 0;
  scope.Spawn(PingPong(&a, &b, 5000, &bad));
  scope.Spawn(PingPong(&b, &a, 5000, &bad));
  scope.JoinBlocking();
  EXPECT_EQ(bad, 0);
}

Task<void> UseBudget(Budget* budget, int64_t units, std::atomic<int64_t>* in_use, std::atomic<int64_t>* peak,
                     int rounds) {
  for (int i = 0; i < rounds; ++i) {
    const absl::Status status = co_await budget->Acquire(units);
    if (!status.ok()) co_return;
    const int64_t now = in_use->fetch_add(units) + units;
    int64_t seen = peak->load();
    while (now > seen && !peak->compare_exchange_weak(seen, now)) {
    }
    if (i % 10 == 0) (void)co_await Sleep(absl::Microseconds(50));
    in_use->fetch_sub(units);
    budget->Release(units);
  }
}

TEST(Budget, IsNeverExceededUnderLoad) {
  Runtime runtime(3);
  TaskScope scope(runtime.executor());
  Budget budget(runtime.executor(), 10);
  std::atomic<int64_t> in_use = 0;
  std::atomic<int64_t> peak = 0;
  for (int i = 0; i < 30; ++i) scope.Spawn(UseBudget(&budget, 1 + i % 5, &in_use, &peak, 100));
  scope.JoinBlocking();
  EXPECT_LE(peak, 10);
  EXPECT_EQ(in_use, 0);
}

TEST(Budget, ServesMoreThanTheTotalAlone) {
  Runtime runtime(2);
  TaskScope scope(runtime.executor());
  Budget budget(runtime.executor(), 10);
  std::atomic<int64_t> in_use = 0;
  std::atomic<int64_t> peak = 0;
  scope.Spawn(UseBudget(&budget, 50, &in_use, &peak, 5));
  for (int i = 0; i < 5; ++i) scope.Spawn(UseBudget(&budget, 3, &in_use, &peak, 20));
  scope.JoinBlocking();
  EXPECT_EQ(peak, 50);
}

Task<void> AcquireOne(Budget* budget, int64_t units, absl::Status* result) {
  *result = co_await budget->Acquire(units);
}

TEST(Budget, CancelledWaiterLeavesTheQueue) {
  Runtime runtime(2);
  Budget budget(runtime.executor(), 10);
  absl::Status held;
  RunBlocking(runtime.executor(), AcquireOne(&budget, 6, &held));
  TaskScope scope(runtime.executor());
  absl::Status big;
  scope.Spawn(AcquireOne(&budget, 8, &big));
  scope.Cancel();
  scope.JoinBlocking();
  EXPECT_TRUE(absl::IsCancelled(big)) << big;
  absl::Status small;
  RunBlocking(runtime.executor(), AcquireOne(&budget, 4, &small));
  EXPECT_TRUE(small.ok());
}

Task<void> NoteThread(std::thread::id* id) {
  *id = std::this_thread::get_id();
  co_return;
}

Task<void> Wander(asio::any_io_executor other, std::thread::id* inner, std::thread::id* switched,
                  std::thread::id* after) {
  co_await RunOn(other, NoteThread(inner));
  co_await SwitchTo(other);
  *switched = std::this_thread::get_id();
  (void)co_await Sleep(absl::Milliseconds(1));
  *after = std::this_thread::get_id();
}

TEST(RunOn, RunsOnTheOtherExecutorAndComesBack) {
  Runtime main(1);
  Runtime other(1);
  std::thread::id inner;
  std::thread::id switched;
  std::thread::id after;
  RunBlocking(main.executor(), Wander(other.executor(), &inner, &switched, &after));
  EXPECT_EQ(inner, switched);
  EXPECT_NE(inner, after);
}

Task<void> Throw() {
  throw std::runtime_error("boom");
  co_return;
}

TEST(SpawnDeathTest, EscapedExceptionEndsTheProcessWithItsText) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        Runtime runtime(1);
        RunBlocking(runtime.executor(), Throw());
      },
      "boom");
}

}  // namespace
}  // namespace poststelle::async
