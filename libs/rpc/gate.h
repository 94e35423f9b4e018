// What stands before the calls of a service until it can answer them.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>

#include "libs/async/runtime.h"
#include "libs/rpc/access.h"
#include "libs/rpc/status.h"

namespace poststelle::rpc {

// What a stream keeps of having been let in, to ask again while it goes on. Not thread-safe.
class Admission {
 public:
  Admission(const Access& access, const MethodRule& rule, const Access::Claim& claim)
      : access_(access), rule_(rule), claim_(claim) {}
  // False as soon as the call would not be let in any more.
  bool Holds() {
    if (refused_.ok()) refused_ = access_.CheckAgain(claim_, rule_);
    return refused_.ok();
  }
  // How the call ends: as its handler says, or with what Holds found.
  const grpc::Status& End(const grpc::Status& handler) const { return refused_.ok() ? handler : refused_; }

 private:
  const Access& access_;
  const MethodRule& rule_;
  const Access::Claim claim_;
  grpc::Status refused_;
};

// Where calls run, and whether they are let in. Every handler goes through it, by Unary, StreamOut::Run or Bidi::Run:
// first the caller has to be one whom the method serves (access.h), then the service has to be ready. A service is
// reachable before its database is, and answers UNAVAILABLE (NOT_READY, with RetryInfo) meanwhile. Open() publishes
// what was written before it to every call that it lets in. Outlives the server. Thread-safe.
class Gate {
 public:
  Gate(asio::any_io_executor executor, const Access& access) : executor_(std::move(executor)), access_(access) {}
  const asio::any_io_executor& executor() const { return executor_; }
  // For good: what is away later fails the calls that need it, with its own error.
  void Open() { open_.store(true, std::memory_order_release); }

  // Runs the handler of the method that takes a Request if the caller may call it and the gate is open; otherwise it
  // never begins. It must not read in its making what is not there yet. The context is only looked at before this
  // returns.
  template <typename Request>
  async::Task<grpc::Status> Admit(const grpc::CallbackServerContext& context, async::Task<grpc::Status> handler) const {
    return AdmitAfter(access_.Check(context, RuleOf<Request>()), std::move(handler));
  }

  // For a stream, which asks before each thing it sends.
  template <typename Request>
  Admission AdmissionOf(const grpc::CallbackServerContext& context) const {
    return Admission(access_, RuleOf<Request>(), access_.ClaimOf(context));
  }

  // Who calls.
  CallerIdentity CallerOf(const grpc::CallbackServerContext& context) const { return access_.CallerOf(context); }

 private:
  async::Task<grpc::Status> AdmitAfter(grpc::Status checked, async::Task<grpc::Status> handler) const {
    if (!checked.ok()) co_return checked;
    if (!open_.load(std::memory_order_acquire)) {
      co_return Error(grpc::StatusCode::UNAVAILABLE, "NOT_READY",
                      "the service has started and is not ready yet: its database is away or being prepared");
    }
    co_return co_await std::move(handler);
  }

  const asio::any_io_executor executor_;
  const Access& access_;
  std::atomic<bool> open_{false};
};

}  // namespace poststelle::rpc
