// Streams the steps of a test while they come.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include "libs/async/runtime.h"
#include "libs/probe/step_log.h"
#include "libs/rpc/server_stream.h"

namespace poststelle::probe {

// Between the coroutine that tests and the one that writes. Thread-safe.
class StepQueue {
 public:
  void Push(const Step& step) {
    std::lock_guard lock(mutex_);
    steps_.push_back(step);
  }
  bool Pop(Step& out) {
    std::lock_guard lock(mutex_);
    if (steps_.empty()) return false;
    out = std::move(steps_.front());
    steps_.pop_front();
    return true;
  }
  std::atomic<bool> complete{false};  // nothing is pushed any more

 private:
  std::mutex mutex_;
  std::deque<Step> steps_;
};

template <typename Response>
async::Task<void> RunAndTell(std::function<async::Task<void>(StepLog&)> test, StepLog& log, StepQueue& queue,
                             rpc::StreamOut<Response>& out) {
  co_await test(log);
  queue.complete = true;
  out.Wake();
}

// Runs `test` on `executor` and writes each step as it comes. A client that goes ends the test. `mailbox` and what
// `test` refers to live until it returns.
template <typename Response>
async::Task<grpc::Status> StreamSteps(asio::any_io_executor executor, std::shared_ptr<rpc::StreamOut<Response>> out,
                                      const config::v1::Mailbox& mailbox,
                                      std::function<async::Task<void>(StepLog&)> test) {
  StepQueue queue;
  StepLog::Sink sink = [&queue, &out](const Step& step) {
    queue.Push(step);
    out->Wake();
  };
  StepLog log(mailbox, sink);
  async::TaskScope scope(executor);
  scope.Spawn(RunAndTell(std::move(test), log, queue, *out));
  Response response;
  while (true) {
    const bool complete = queue.complete;  // read before the queue, which holds all of it then
    if (queue.Pop(*response.mutable_step())) {
      const bool written = co_await out->Write(response);
      if (!written) break;
      continue;
    }
    if (complete) break;
    const bool gone = co_await out->WaitOrCancelled(absl::Seconds(1));
    if (gone) break;
  }
  scope.Cancel();
  co_await scope.Join();
  co_return grpc::Status::OK;
}

}  // namespace poststelle::probe
