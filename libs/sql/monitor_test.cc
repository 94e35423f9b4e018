#include "libs/sql/monitor.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <mutex>

namespace poststelle::sql {
namespace {

// Answers as it was told, then OK; or not at all until Release().
class ScriptedDatabase : public Database {
 public:
  ScriptedDatabase(const asio::any_io_executor& executor, std::deque<absl::Status> script, bool hangs)
      : script_(std::move(script)), hangs_(hangs), released_(executor) {}
  Engine engine() const override { return Engine::kSqlite; }
  async::Task<absl::Status> Write(Work) override { co_return absl::InternalError("nobody writes here"); }
  async::Task<absl::Status> Read(Work) override {
    ++reads;
    while (hangs_) (co_await released_.Wait(absl::Seconds(1))).IgnoreError();
    if (script_.empty()) co_return absl::OkStatus();
    absl::Status answer = std::move(script_.front());
    script_.pop_front();
    co_return answer;
  }
  void Release() {
    hangs_ = false;
    released_.Notify();
  }
  std::atomic<int> reads{0};

 private:
  std::deque<absl::Status> script_;
  std::atomic<bool> hangs_;
  async::Event released_;
};

// What was told, in order.
class Told {
 public:
  void operator()(bool answers, const absl::Status& error) {
    const std::lock_guard lock(mutex_);
    EXPECT_EQ(answers, error.ok());
    told_.push_back(answers);
    changed_.notify_all();
  }
  std::vector<bool> Await(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(60), [&] { return told_.size() >= count; });
    return told_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<bool> told_;
};

MonitorOptions Quick() {
  MonitorOptions options;
  options.every = absl::Milliseconds(1);
  return options;
}

TEST(Monitor, OneBadAnswerIsNotTold) {
  async::Runtime runtime(2);
  const absl::Status away = absl::UnavailableError("away");
  ScriptedDatabase database(runtime.executor(), {away, absl::OkStatus(), away, away, absl::OkStatus(), away}, false);
  Told told;
  Monitor monitor(runtime.executor(), database, Quick(), std::ref(told));
  monitor.Start();
  EXPECT_EQ(told.Await(3), (std::vector<bool>{true, false, true}));
}

TEST(Monitor, ADatabaseThatStandsStillDoesNotAnswer) {
  async::Runtime runtime(2);
  ScriptedDatabase database(runtime.executor(), {}, true);
  Told told;
  MonitorOptions options = Quick();
  options.patience = absl::Milliseconds(10);
  Monitor monitor(runtime.executor(), database, options, std::ref(told));
  monitor.Start();
  EXPECT_EQ(told.Await(2), (std::vector<bool>{true, false}));
  EXPECT_EQ(database.reads, 1);
  database.Release();
  EXPECT_EQ(told.Await(3).at(2), true);
}

}  // namespace
}  // namespace poststelle::sql
