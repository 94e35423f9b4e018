// Hands a bidirectional stream over to coroutines of ours: one may read while another writes.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "libs/async/runtime.h"
#include "libs/rpc/gate.h"
#include "libs/rpc/malformed.h"

namespace poststelle::rpc {

// Shared by gRPC (until OnDone) and the coroutines. One Read and one Write at a time. Reading may go on in another task
// than the handler: once the handler has returned, Read returns nothing; Write is the handler's alone.
template <typename Request, typename Response>
class Bidi : public grpc::ServerBidiReactor<Request, Response> {
 public:
  explicit Bidi(const asio::any_io_executor& executor) : read_(executor), written_(executor) {}

  // The next request; empty when the client is done, gone, or the call was finished; and when it sent what is no
  // Request, which the end of the call then says.
  async::Task<std::optional<Request>> Read() {
    {
      std::lock_guard lock(finish_mutex_);
      if (finished_) co_return std::nullopt;
      read_done_ = false;
      Mark();
      this->StartRead(&request_);
    }
    while (!read_done_) (co_await read_.Wait(absl::Seconds(10))).IgnoreError();
    if (!read_ok_) {
      malformed_ = !Marked();
      co_return std::nullopt;
    }
    co_return request_;
  }

  // False when the client is gone, or its token was taken away, which the end of the call then says.
  async::Task<bool> Write(const Response& response) {
    if (cancelled_ || !admission_->Holds()) co_return false;
    write_done_ = false;
    this->StartWrite(&response);
    while (!write_done_) (co_await written_.Wait(absl::Seconds(10))).IgnoreError();
    co_return write_ok_;
  }
  bool cancelled() const { return cancelled_; }

  // Serves the call behind `gate` with `handler` in `scope`, which is joined after the server has shut down.
  static Bidi* Run(std::shared_ptr<Bidi> stream, async::TaskScope& scope, grpc::CallbackServerContext* context,
                   const Gate& gate, async::Task<grpc::Status> handler) {
    stream->self_ = stream;
    stream->method_ = RuleOf<Request>().method;
    stream->admission_.emplace(gate.AdmissionOf<Request>(*context));
    scope.Spawn(Drive(stream, gate.Admit<Request>(*context, std::move(handler))));
    return stream.get();
  }

 private:
  static async::Task<void> Drive(std::shared_ptr<Bidi> stream, async::Task<grpc::Status> handler) {
    grpc::Status status = co_await std::move(handler);
    std::lock_guard lock(stream->finish_mutex_);
    stream->finished_ = true;
    if (stream->malformed_) status = MalformedRequest(stream->method_);
    stream->Finish(stream->admission_->End(status));
  }
  // gRPC tells the end of the stream and a message that it can't parse in the same way, but clears the request before
  // it parses: a mark that is gone was a message.
  void Mark() {
    request_.Clear();
    request_.GetReflection()->MutableUnknownFields(&request_)->AddVarint(kMark, 1);
  }
  bool Marked() const {
    const auto& unknown = request_.GetReflection()->GetUnknownFields(request_);
    return unknown.field_count() == 1 && unknown.field(0).number() == kMark;
  }
  void OnReadDone(bool ok) override {
    read_ok_ = ok;
    read_done_ = true;
    read_.Notify();
  }
  void OnWriteDone(bool ok) override {
    write_ok_ = ok;
    write_done_ = true;
    written_.Notify();
  }
  void OnCancel() override { cancelled_ = true; }
  void OnDone() override { auto last = std::move(self_); }

  static constexpr int kMark = (1 << 29) - 1;  // the highest field number

  std::shared_ptr<Bidi> self_;
  std::string method_;                  // from Run on
  std::optional<Admission> admission_;  // from Run on
  std::mutex finish_mutex_;
  bool finished_ = false;  // guarded by finish_mutex_: a finished call must not be read from
  Request request_;
  std::atomic<bool> malformed_{false};
  async::Event read_;
  async::Event written_;
  std::atomic<bool> read_done_{false};
  std::atomic<bool> read_ok_{false};
  std::atomic<bool> write_done_{false};
  std::atomic<bool> write_ok_{false};
  std::atomic<bool> cancelled_{false};
};

}  // namespace poststelle::rpc
