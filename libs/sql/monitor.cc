#include "libs/sql/monitor.h"

#include <mutex>
#include <optional>

namespace poststelle::sql {

struct Monitor::Question {
  explicit Question(asio::any_io_executor executor) : answered(std::move(executor)) {}
  async::Event answered;
  std::mutex mutex;
  bool asked = false;                  // guarded by mutex
  std::optional<absl::Status> answer;  // guarded by mutex; not looked at yet
};

Monitor::Monitor(asio::any_io_executor executor, Database& database, MonitorOptions options,
                 std::function<void(bool, const absl::Status&)> told)
    : question_(std::make_shared<Question>(executor)),
      database_(database),
      options_(options),
      told_(std::move(told)),
      scope_(std::move(executor)) {}

Monitor::~Monitor() { Stop(); }

void Monitor::Start() { scope_.Spawn(Loop()); }

void Monitor::Stop() {
  scope_.Cancel();
  scope_.JoinBlocking();
}

async::Task<void> Monitor::Ask() {
  Work work = [](Transaction& tx) -> async::Task<absl::Status> {
    co_return (co_await tx.Execute("SELECT MAX(version) FROM schema_migration")).status();
  };
  absl::Status answer = co_await database_.Read(std::move(work));
  {
    const std::lock_guard lock(question_->mutex);
    question_->answer = std::move(answer);
    question_->asked = false;
  }
  question_->answered.Notify();
}

// Asks unless a question is out already, whose answer may have come late.
async::Task<absl::Status> Monitor::NextAnswer() {
  {
    const std::lock_guard lock(question_->mutex);
    if (!question_->asked && !question_->answer) {
      question_->asked = true;
      scope_.Spawn(Ask());
    }
  }
  const absl::Time deadline = absl::Now() + options_.patience;
  while (true) {
    {
      const std::lock_guard lock(question_->mutex);
      if (question_->answer) {
        absl::Status answer = *std::move(question_->answer);
        question_->answer.reset();
        co_return answer;
      }
    }
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) co_return absl::UnavailableError("the database does not answer in time");
    absl::Status woken = co_await question_->answered.Wait(left);
    if (absl::IsCancelled(woken)) co_return woken;
  }
}

async::Task<void> Monitor::Loop() {
  bool answers = true;
  int contrary = 0;
  told_(true, absl::OkStatus());
  while (true) {
    absl::Status answer = co_await NextAnswer();
    if (scope_.cancelled()) co_return;
    contrary = answer.ok() == answers ? 0 : contrary + 1;
    if (contrary >= options_.turns) {
      answers = answer.ok();
      contrary = 0;
      told_(answers, answer);
    }
    if (absl::IsCancelled(co_await async::Sleep(options_.every))) co_return;
  }
}

}  // namespace poststelle::sql
