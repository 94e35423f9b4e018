#include "libs/redis/node.h"

#include <atomic>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "libs/base/status_macros.h"
#include "libs/redis/backoff.h"
#include "libs/redis/connection.h"

namespace poststelle::redis {
namespace {

constexpr size_t kReadBuffer = 64 << 10;
// With nothing under way a read just waits for the server to close.
constexpr absl::Duration kIdle = absl::Hours(1);

}  // namespace

struct Node::Pending {
  explicit Pending(const asio::any_io_executor& executor) : ended(executor) {}
  std::string bytes;
  int answers = 1;         // that are still to come; Serve alone
  absl::Time written_at;   // guarded by the node's mutex; past infinity: not written
  bool abandoned = false;  // guarded likewise: nobody waits any more
  absl::StatusOr<Answer> answer = absl::UnknownError("");
  std::atomic<bool> done{false};
  async::Event ended;

  void Finish(absl::StatusOr<Answer> result) {
    answer = std::move(result);
    done = true;
    ended.Notify();
  }
};

Node::Node(asio::any_io_executor executor, net::Dialer& dialer, const Address& address, Endpoint endpoint,
           std::function<void(bool)> on_change)
    : executor_(std::move(executor)),
      dialer_(dialer),
      address_(address),
      endpoint_(std::move(endpoint)),
      on_change_(std::move(on_change)) {}

bool Node::connected() const {
  std::lock_guard lock(mutex_);
  return stream_ != nullptr;
}

bool Node::idle() const {
  std::lock_guard lock(mutex_);
  return queue_.empty() && waiting_.empty();
}

absl::Status Node::Explain(const absl::Status& status) const {
  const absl::StatusCode code =
      absl::IsFailedPrecondition(status) ? absl::StatusCode::kFailedPrecondition : absl::StatusCode::kUnavailable;
  return absl::Status(code, absl::StrCat("Redis at ", endpoint_.ToString(), ": ", std::string(status.message())));
}

void Node::WakeLocked() {
  if (woken_ || stream_ == nullptr) return;
  woken_ = true;
  stream_->Wake();
}

void Node::SetStream(net::Stream* stream) {
  bool changed = false;
  {
    std::lock_guard lock(mutex_);
    changed = (stream_ != nullptr) != (stream != nullptr);
    stream_ = stream;
    woken_ = false;
    give_up_ = false;
  }
  if (changed) on_change_(stream != nullptr);
}

void Node::FailAll(const absl::Status& status) {
  std::deque<std::shared_ptr<Pending>> all;
  {
    std::lock_guard lock(mutex_);
    all.swap(waiting_);
    all.insert(all.end(), queue_.begin(), queue_.end());
    queue_.clear();
  }
  for (const auto& pending : all) pending->Finish(status);
}

void Node::Stop(const absl::Status& status) {
  {
    std::lock_guard lock(mutex_);
    if (stopped_) return;
    stopped_ = true;
    stop_status_ = status;
    WakeLocked();
  }
  FailAll(status);
}

void Node::Reconnect() {
  std::lock_guard lock(mutex_);
  give_up_ = true;
  WakeLocked();
}

async::Task<Node::Outcome> Node::Send(std::string bytes, int answers, absl::Time deadline) {
  auto pending = std::make_shared<Pending>(executor_);
  pending->bytes = std::move(bytes);
  pending->answers = answers;
  pending->written_at = absl::InfinitePast();
  Outcome out{absl::UnavailableError(""), false};
  {
    std::lock_guard lock(mutex_);
    if (stopped_) {
      out.answer = stop_status_;
      co_return out;
    }
    if (queue_.size() + waiting_.size() >= kMaxPending) {
      out.answer = absl::ResourceExhaustedError("too many commands wait for Redis");
      co_return out;
    }
    queue_.push_back(pending);
    WakeLocked();
  }
  absl::Status waited;
  while (!pending->done) {
    waited = co_await pending->ended.Wait(deadline - absl::Now());
    if (!waited.ok()) break;
  }
  {
    std::lock_guard lock(mutex_);
    pending->abandoned = true;
    out.written = pending->written_at != absl::InfinitePast();
  }
  if (pending->done) {
    out.answer = std::move(pending->answer);
  } else if (absl::IsCancelled(waited)) {
    out.answer = waited;
  } else {
    out.answer = Explain(absl::UnavailableError(out.written ? "no answer in time" : "no connection in time"));
  }
  co_return out;
}

absl::Status Node::TakeQueued(std::string& out, absl::Duration& timeout, bool& more) {
  std::lock_guard lock(mutex_);
  if (stopped_) return stop_status_;
  if (give_up_) return absl::UnavailableError("the connection was given up");
  woken_ = false;
  out.clear();
  const absl::Time now = absl::Now();
  while (!queue_.empty() && out.size() < kMaxWrite) {
    std::shared_ptr<Pending> first = std::move(queue_.front());
    queue_.pop_front();
    if (first->abandoned) continue;
    first->written_at = now;
    out += first->bytes;
    first->bytes = std::string();
    waiting_.push_back(std::move(first));
  }
  more = !queue_.empty();
  timeout = kIdle;
  if (!waiting_.empty()) {
    timeout = waiting_.front()->written_at + address_.timeout - now;
    if (timeout <= absl::ZeroDuration()) {
      return absl::UnavailableError(absl::StrCat("no answer within ", absl::FormatDuration(address_.timeout)));
    }
  }
  return absl::OkStatus();
}

// Hands the complete answers to those who wait.
absl::Status Node::Distribute(Connection& connection) {
  while (true) {
    PS_ASSIGN_OR_RETURN(std::optional<Answer> answer, connection.reader().Next());
    if (!answer) return absl::OkStatus();
    std::shared_ptr<Pending> first;
    {
      std::lock_guard lock(mutex_);
      if (waiting_.empty()) {
        return absl::UnavailableError(stopped_ ? "stopped" : "Redis answered what was not asked");
      }
      if (--waiting_.front()->answers > 0) continue;
      first = std::move(waiting_.front());
      waiting_.pop_front();
    }
    answered_ = true;
    first->Finish(*std::move(answer));
  }
}

// One coroutine for both directions: a stream serves one at a time, and Wake ends its read as soon as there is
// something to write. It always reads, so that a server that closes is noticed at once and not by the next command.
async::Task<absl::Status> Node::Exchange(Connection& connection) {
  std::vector<char> buffer(kReadBuffer);
  std::string out;
  while (true) {
    absl::Duration timeout;
    bool more = false;
    PS_CO_RETURN_IF_ERROR(TakeQueued(out, timeout, more));
    if (!out.empty()) PS_CO_RETURN_IF_ERROR(co_await connection.stream().Write(out, address_.timeout));
    if (more) connection.stream().Wake();
    PS_CO_ASSIGN_OR_RETURN(size_t got, co_await connection.stream().ReadSome(buffer.data(), buffer.size(), timeout));
    if (got == 0) continue;
    connection.reader().Feed(std::string_view(buffer.data(), got));
    PS_CO_RETURN_IF_ERROR(Distribute(connection));
  }
}

async::Task<void> Node::Serve(std::shared_ptr<Node> self) {
  Backoff backoff(kLeastBackoff, kMostBackoff);
  while (true) {
    {
      std::lock_guard lock(self->mutex_);
      if (self->stopped_) co_return;
    }
    self->answered_ = false;
    auto connection = co_await Connection::Open(self->dialer_, self->address_, self->endpoint_,
                                                absl::Now() + std::min(kConnectTimeout, self->address_.timeout));
    absl::Status status = connection.status();
    if (connection.ok()) {
      self->SetStream(&(*connection)->stream());
      status = co_await self->Exchange(**connection);
      self->SetStream(nullptr);
    }
    if (self->answered_) backoff.Reset();
    self->FailAll(self->Explain(status));
    const absl::Status slept = co_await async::Sleep(backoff.Next());
    if (!slept.ok()) co_return;
  }
}

}  // namespace poststelle::redis
