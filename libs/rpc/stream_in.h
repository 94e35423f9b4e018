// What a server streams, read by a coroutine.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <memory>

#include "libs/async/runtime.h"

namespace poststelle::rpc {

// One server-streaming call. Prepared with the stub (`stub->async()->Method(&in->context(), &request, in.get())`), then
// Begin(). Shared by gRPC (until the end) and the coroutine that reads. The request lives until the end.
template <typename Response>
class StreamIn : public grpc::ClientReadReactor<Response> {
 public:
  explicit StreamIn(const asio::any_io_executor& executor) : executor_(executor), event_(executor) {}

  grpc::ClientContext& context() { return context_; }
  static void Begin(const std::shared_ptr<StreamIn>& in) {
    in->self_ = in;
    in->Start();
  }

  enum class Event { kMessage, kEnd, kNothing };
  // The next message into `out`; kEnd once there are no more, with status(); kNothing after about `patience`, so that
  // the caller can look whether anybody still wants them.
  async::Task<Event> Read(Response& out, absl::Duration patience) {
    if (!read_ && !ended_) (co_await event_.Wait(patience)).IgnoreError();
    if (read_ && read_ok_) {
      out = std::move(next_);
      read_ = false;
      next_.Clear();
      this->StartRead(&next_);
      co_return Event::kMessage;
    }
    co_return ended_ ? Event::kEnd : Event::kNothing;
  }
  // After kEnd.
  const grpc::Status& status() const { return status_; }

 private:
  static async::Task<void> Linger(std::shared_ptr<StreamIn>) {
    (co_await async::Sleep(absl::Seconds(1))).IgnoreError();  // only its end counts
  }
  void Start() {
    this->StartRead(&next_);
    this->StartCall();
  }
  void OnReadDone(bool ok) override {
    read_ok_ = ok;
    read_ = true;
    event_.Notify();
  }
  void OnDone(const grpc::Status& status) override {
    // gRPC still runs the interceptors of the last batch, which the context owns, when it calls this.
    async::Spawn(executor_, Linger(std::move(self_)));
    status_ = status;
    ended_ = true;
    event_.Notify();
  }

  const asio::any_io_executor executor_;
  std::shared_ptr<StreamIn> self_;
  grpc::ClientContext context_;
  async::Event event_;
  Response next_;
  grpc::Status status_;
  std::atomic<bool> read_{false};
  std::atomic<bool> read_ok_{false};
  std::atomic<bool> ended_{false};
};

}  // namespace poststelle::rpc
