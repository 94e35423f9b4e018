#include "libs/lease/finish_queue.h"

namespace poststelle::lease {
namespace {

// Ends are told together, this long after the first.
constexpr absl::Duration kLinger = absl::Milliseconds(3);
constexpr absl::Duration kAgain = absl::Seconds(1);

}  // namespace

void FinishQueue::Add(Finished finished) {
  {
    std::lock_guard lock(mutex_);
    void_.erase(finished.id);
    std::string id = finished.id;
    waiting_[std::move(id)] = std::move(finished);
  }
  event_.Notify();
}

void FinishQueue::Forget(const std::string& id) {
  std::lock_guard lock(mutex_);
  waiting_.erase(id);
  if (telling_) void_.insert(id);
}

void FinishQueue::Close() {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
  }
  event_.Notify();
}

async::Task<void> FinishQueue::Run() {
  bool last = false;
  while (!last) {
    (co_await event_.Wait(kAgain)).IgnoreError();
    (co_await async::Sleep(kLinger)).IgnoreError();
    {
      std::lock_guard lock(mutex_);
      last = closed_;
    }
    const absl::Status told = co_await Tell();
    after_(told);
  }
}

async::Task<absl::Status> FinishQueue::Tell() {
  std::vector<Finished> finished;
  {
    std::lock_guard lock(mutex_);
    for (auto& [id, one] : waiting_) finished.push_back(std::move(one));
    waiting_.clear();
    telling_ = true;
  }
  absl::Status told;
  if (!finished.empty()) told = co_await schedule_.Done(finished);
  std::lock_guard lock(mutex_);
  telling_ = false;
  for (Finished& rest : finished) {
    // A later end of the same mailbox stands.
    if (!void_.contains(rest.id)) waiting_.try_emplace(rest.id, rest);
  }
  void_.clear();
  co_return told;
}

}  // namespace poststelle::lease
