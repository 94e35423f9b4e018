// What a server streams, read by a coroutine.
#pragma once

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/client_callback.h>

#include <atomic>
#include <memory>

#include "libs/async/runtime.h"

namespace poststelle::rpc {

// One server-streaming call. Prepared with the stub (`stub->async()->Method(&in->context(), &request, in.get())`), then
// Begin(). Shared by gRPC (until the end) and the coroutine that reads, which goes on until kEnd even when it has
// cancelled the call. The request lives until the end.
template <typename Response>
class StreamIn : public grpc::ClientReadReactor<Response> {
 public:
  explicit StreamIn(const asio::any_io_executor& executor) : event_(executor) {}

  grpc::ClientContext& context() { return context_; }
  static void Begin(const std::shared_ptr<StreamIn>& in) {
    in->self_ = in;
    in->Start();
  }

  enum class Event { kMessage, kEnd, kNothing };
  // The next message into `out`; kEnd once there are no more, with status(); kNothing after about `patience`, so that
  // the caller can look whether anybody still wants them.
  async::Task<Event> Read(Response& out, absl::Duration patience) {
    if (!message_ && !ended_) (co_await event_.Wait(patience)).IgnoreError();
    if (message_) {
      out = std::move(next_);
      message_ = false;
      next_.Clear();
      this->StartRead(&next_);
      co_return Event::kMessage;
    }
    co_return ended_ ? Event::kEnd : Event::kNothing;
  }
  // After kEnd.
  const grpc::Status& status() const { return status_; }

 private:
  void Start() {
    // Reads begin outside of gRPC's callbacks, too: until one of them has failed, gRPC must not call this off.
    this->AddHold();
    this->StartRead(&next_);
    this->StartCall();
  }
  void OnReadDone(bool ok) override {
    if (!ok) {
      this->RemoveHold();
      return;  // OnDone follows
    }
    message_ = true;
    event_.Notify();
  }
  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<StreamIn> last = std::move(self_);
    status_ = status;
    ended_ = true;
    event_.Notify();
  }

  std::shared_ptr<StreamIn> self_;
  grpc::ClientContext context_;
  async::Event event_;
  Response next_;
  grpc::Status status_;
  std::atomic<bool> message_{false};  // there is one in next_
  std::atomic<bool> ended_{false};
};

}  // namespace poststelle::rpc
