// Hands a server-streaming call over to a coroutine of ours.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "libs/async/runtime.h"
#include "libs/rpc/gate.h"

namespace poststelle::rpc {

// What the coroutine writes to. Shared by gRPC (until OnDone) and the coroutine. One Write or WriteAll at a time, so a
// slow client holds up its own stream and nothing else.
template <typename Response>
class StreamOut : public grpc::ServerWriteReactor<Response>, public std::enable_shared_from_this<StreamOut<Response>> {
 public:
  explicit StreamOut(const asio::any_io_executor& executor) : written_(executor), cancelled_event_(executor) {}

  // False when the client is gone, or its token was taken away, which the end of the call then says.
  async::Task<bool> Write(const Response& response) {
    std::vector<const Response*> one = {&response};
    co_return co_await WriteAll(std::move(one));
  }

  // Several, without coming back here between them; the responses live until it returns. Asks about the token once.
  // Keep it to about a hundred.
  async::Task<bool> WriteAll(std::vector<const Response*> responses) {
    if (cancelled_ || !admission_->Holds()) co_return false;
    if (responses.empty()) co_return true;
    write_done_ = false;
    responses_ = std::move(responses);
    next_ = 0;
    StartNext();
    while (!write_done_) (co_await written_.Wait(absl::Seconds(10))).IgnoreError();
    co_return write_ok_;
  }

  // Waits, or until Wake(); true as soon as the client is gone.
  async::Task<bool> WaitOrCancelled(absl::Duration duration) {
    if (!cancelled_) (co_await cancelled_event_.Wait(duration)).IgnoreError();
    co_return cancelled_;
  }
  bool cancelled() const { return cancelled_; }
  // Ends a WaitOrCancelled early: the one that is pending, or the next one. Any thread.
  void Wake() { cancelled_event_.Notify(); }

  // Starts `handler` behind `gate` with this stream, which keeps itself alive until gRPC and the coroutine are both
  // done. The type of the request tells the method, and with it the roles that it serves.
  template <typename Request>
  static StreamOut* Run(std::shared_ptr<StreamOut> stream, grpc::CallbackServerContext* context, const Gate& gate,
                        const Request&, async::Task<grpc::Status> handler) {
    stream->self_ = stream;
    stream->admission_.emplace(gate.AdmissionOf<Request>(*context));
    async::Spawn(gate.executor(), Drive(stream, gate.Admit<Request>(*context, std::move(handler))));
    return stream.get();
  }

 private:
  static async::Task<void> Drive(std::shared_ptr<StreamOut> stream, async::Task<grpc::Status> handler) {
    grpc::Status status = co_await std::move(handler);
    stream->Finish(stream->admission_->End(status));
  }
  // Without gRPC's buffer hint, which kept what was written until the next ping.
  void StartNext() {
    const Response* response = responses_[next_++];
    this->StartWrite(response);
  }
  void OnWriteDone(bool ok) override {
    if (ok && next_ < responses_.size()) {
      StartNext();
      return;
    }
    write_ok_ = ok;
    write_done_ = true;
    written_.Notify();
  }
  void OnCancel() override {
    cancelled_ = true;
    cancelled_event_.Notify();
  }
  void OnDone() override { auto last = std::move(self_); }

  std::shared_ptr<StreamOut> self_;
  std::optional<Admission> admission_;      // from Run on
  std::vector<const Response*> responses_;  // with next_: those of this WriteAll; of gRPC's callback until it is done
  size_t next_ = 0;
  async::Event written_;
  async::Event cancelled_event_;
  std::atomic<bool> write_done_{false};
  std::atomic<bool> write_ok_{false};
  std::atomic<bool> cancelled_{false};
};

}  // namespace poststelle::rpc
