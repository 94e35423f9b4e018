// What stands before the calls of a service until it can answer them.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>

#include "libs/async/runtime.h"
#include "libs/rpc/status.h"

namespace poststelle::rpc {

// Where calls run, and whether they are let in: a service is reachable before its database is, and answers UNAVAILABLE
// (NOT_READY, with RetryInfo) meanwhile. Open() publishes what was written before it to every call that it lets in.
// Outlives the server. Thread-safe.
class Gate {
 public:
  explicit Gate(asio::any_io_executor executor) : executor_(std::move(executor)) {}
  const asio::any_io_executor& executor() const { return executor_; }
  // For good: what is away later fails the calls that need it, with its own error.
  void Open() { open_.store(true, std::memory_order_release); }

  // Runs `handler` if the gate is open; otherwise it never begins. It must not read in its making what is not there
  // yet.
  async::Task<grpc::Status> Admit(async::Task<grpc::Status> handler) const {
    if (!open_.load(std::memory_order_acquire)) {
      co_return Error(grpc::StatusCode::UNAVAILABLE, "NOT_READY",
                      "the service has started and is not ready yet: its database is away or being prepared");
    }
    co_return co_await std::move(handler);
  }

 private:
  const asio::any_io_executor executor_;
  std::atomic<bool> open_{false};
};

}  // namespace poststelle::rpc
