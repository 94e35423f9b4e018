#include "services/fetcher/subscriber.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "libs/base/ids.h"
#include "libs/rpc/status.h"

namespace poststelle::fetcher {
namespace {

constexpr absl::Duration kHeartbeat = absl::Seconds(10);
constexpr absl::Duration kRenew = absl::Seconds(3);
constexpr absl::Duration kStandbyRetry = absl::Milliseconds(500);
// How often committed events are looked for; short, because events of other workers come without a word.
constexpr absl::Duration kLook = absl::Milliseconds(100);
constexpr int kDefaultWindow = 100;
constexpr int kMaxWindow = 10'000;
constexpr int kReadAtOnce = 200;

// Shared by the coroutine that sends and the one that reads acknowledgements.
struct State {
  explicit State(const asio::any_io_executor& executor) : changed(executor) {}
  std::string name;
  int64_t generation = 0;
  async::Event changed;
  std::mutex mutex;
  Offsets sent;
  Offsets acknowledged;
  bool ended = false;  // the client closed its side
  std::optional<grpc::Status> failed;
};

grpc::Status CheckStart(const v1::SubscribeRequest& request) {
  std::vector<rpc::Violation> violations;
  auto wrong = [&violations](const std::string& field, const std::string& description) {
    rpc::Violation violation;
    violation.field = field;
    violation.description = description;
    violations.push_back(std::move(violation));
  };
  if (!request.has_start()) {
    wrong("start", "must be the first message");
    return rpc::InvalidFields(violations);
  }
  const std::string& name = request.start().subscription();
  const bool good = !name.empty() && name.size() <= 63 &&
                    name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
  if (!good) wrong("start.subscription", "must have 1 to 63 characters of a-z, 0-9 and hyphen");
  const int window = request.start().max_unacknowledged();
  if (window < 0 || window > kMaxWindow) wrong("start.max_unacknowledged", absl::StrCat("must be 1 to ", kMaxWindow));
  return violations.empty() ? grpc::Status::OK : rpc::InvalidFields(violations);
}

grpc::Status TakenOver(const std::string& name) {
  return rpc::Error(grpc::StatusCode::ABORTED, "SUBSCRIPTION_TAKEN_OVER",
                    absl::StrCat("subscription ", name, " was taken over by another subscriber"),
                    {{"subscription", name}});
}

grpc::Status FromFeed(const absl::Status& status, const std::string& name) {
  if (absl::IsAborted(status)) return TakenOver(name);
  return rpc::FromAbsl(status);
}

async::Task<grpc::Status> TakeAcknowledgement(const v1::SubscribeRequest& request, State& state, TicketFeed& feed) {
  if (!request.has_acknowledge()) co_return rpc::InvalidFields({{"acknowledge", "must follow the first message"}});
  const v1::SubscribeRequest::Acknowledge& ack = request.acknowledge();
  const v1::Position& position = ack.position();
  if (!position.epoch().empty() && position.epoch() != feed.info().epoch) {
    co_return rpc::Error(grpc::StatusCode::OUT_OF_RANGE, "EPOCH_CHANGED",
                         "the position is of another history of the feed");
  }
  {
    std::lock_guard lock(state.mutex);
    auto sent = state.sent.find(position.partition());
    if (sent == state.sent.end() || position.offset() > sent->second) {
      co_return rpc::InvalidFields({{"acknowledge.position", "names an event that was not sent on this stream"}});
    }
  }
  const absl::Status moved =
      co_await feed.Acknowledge(state.name, ack.generation(), position.partition(), position.offset());
  if (!moved.ok()) co_return FromFeed(moved, state.name);
  {
    std::lock_guard lock(state.mutex);
    int64_t& acknowledged = state.acknowledged[position.partition()];
    acknowledged = std::max(acknowledged, position.offset());
  }
  co_return grpc::Status::OK;
}

async::Task<void> ReadAcknowledgements(std::shared_ptr<SubscribeStream> stream, std::shared_ptr<State> state,
                                       TicketFeed& feed) {
  while (true) {
    std::optional<v1::SubscribeRequest> request = co_await stream->Read();
    grpc::Status status;
    if (request) status = co_await TakeAcknowledgement(*request, *state, feed);
    {
      std::lock_guard lock(state->mutex);
      if (!request) state->ended = true;
      if (!status.ok()) state->failed = status;
    }
    state->changed.Notify();
    if (!request || !status.ok()) co_return;
  }
}

int64_t InFlight(const State& state) {  // under state.mutex
  int64_t sum = 0;
  for (const auto& [partition, offset] : state.sent) sum += offset - state.acknowledged.at(partition);
  return sum;
}

// Sends what is committed and fits into the window. Returns whether anything was sent, or nothing at all if the client
// left.
async::Task<absl::StatusOr<bool>> SendCommitted(SubscribeStream& stream, State& state, TicketFeed& feed, int window) {
  absl::StatusOr<Offsets> heads = co_await feed.Heads();
  if (!heads.ok()) co_return heads.status();
  bool any = false;
  for (const auto& [partition, head] : *heads) {
    int64_t after = 0;
    int64_t room = 0;
    {
      std::lock_guard lock(state.mutex);
      after = state.sent[partition];
      room = window - InFlight(state);
    }
    if (head <= after || room <= 0) continue;
    auto page = co_await feed.ReadPartition(partition, after, static_cast<int>(std::min<int64_t>(room, kReadAtOnce)));
    if (!page.ok()) co_return page.status();
    for (v1::TicketEvent& event : page->events) {
      v1::SubscribeResponse response;
      const int64_t offset = event.position().offset();
      *response.mutable_delivery()->mutable_event() = std::move(event);
      response.mutable_delivery()->set_generation(state.generation);
      {
        // Counted as sent before it is: an acknowledgement may overtake us.
        std::lock_guard lock(state.mutex);
        state.sent[partition] = offset;
      }
      const bool written = co_await stream.Write(response);
      if (!written) co_return absl::CancelledError("the client is gone");
      any = true;
    }
  }
  co_return any;
}

// Waits until the subscription is ours; an error ends the stream.
async::Task<absl::StatusOr<TicketFeed::Grant>> WaitForTurn(SubscribeStream& stream, TicketFeed& feed,
                                                           const std::string& name, const std::string& holder,
                                                           bool from_now, const std::atomic<bool>& draining) {
  bool told = false;
  while (!draining && !stream.cancelled()) {
    absl::StatusOr<std::optional<TicketFeed::Grant>> grant = co_await feed.Take(name, holder, from_now);
    if (!grant.ok()) co_return grant.status();
    if (grant->has_value()) co_return **grant;
    if (!told) {
      v1::SubscribeResponse standby;
      standby.mutable_standby();
      const bool written = co_await stream.Write(standby);
      if (!written) break;
      told = true;
    }
    (co_await async::Sleep(kStandbyRetry)).IgnoreError();
  }
  co_return absl::CancelledError("the client is gone");
}

async::Task<grpc::Status> SendLoop(SubscribeStream& stream, State& state, TicketFeed& feed, const std::string& holder,
                                   int window, const std::atomic<bool>& draining) {
  absl::Time renewed = absl::Now();
  absl::Time spoken = absl::Now();
  while (true) {
    {
      std::lock_guard lock(state.mutex);
      if (state.failed) co_return *state.failed;
      if (state.ended) co_return grpc::Status::OK;
    }
    if (stream.cancelled()) co_return grpc::Status::CANCELLED;
    if (draining) co_return rpc::Error(grpc::StatusCode::UNAVAILABLE, "DRAINING", "the service is shutting down");
    const absl::Time now = absl::Now();
    if (now - renewed > kRenew) {
      const absl::Status kept = co_await feed.Keep(state.name, holder, state.generation);
      if (!kept.ok()) co_return FromFeed(kept, state.name);
      renewed = now;
    }
    absl::StatusOr<bool> sent = co_await SendCommitted(stream, state, feed, window);
    if (!sent.ok()) co_return absl::IsCancelled(sent.status()) ? grpc::Status::CANCELLED : rpc::FromAbsl(sent.status());
    if (*sent) spoken = absl::Now();
    if (absl::Now() - spoken > kHeartbeat) {
      v1::SubscribeResponse heartbeat;
      heartbeat.mutable_heartbeat();
      const bool written = co_await stream.Write(heartbeat);
      if (!written) co_return grpc::Status::CANCELLED;
      spoken = absl::Now();
    }
    if (!*sent) (co_await state.changed.Wait(kLook)).IgnoreError();
  }
}

}  // namespace

async::Task<grpc::Status> ServeSubscriber(std::shared_ptr<SubscribeStream> stream, asio::any_io_executor executor,
                                          TicketFeed& feed, const std::atomic<bool>& draining) {
  std::optional<v1::SubscribeRequest> first = co_await stream->Read();
  if (!first) co_return grpc::Status::CANCELLED;
  grpc::Status checked = CheckStart(*first);
  if (!checked.ok()) co_return checked;
  const v1::SubscribeRequest::Start& start = first->start();
  const std::string holder = RandomId();
  auto grant = co_await WaitForTurn(*stream, feed, start.subscription(), holder,
                                    start.from() == v1::SubscribeRequest::Start::FROM_NOW, draining);
  if (!grant.ok()) {
    if (draining) co_return rpc::Error(grpc::StatusCode::UNAVAILABLE, "DRAINING", "the service is shutting down");
    co_return rpc::FromAbsl(grant.status());
  }
  auto state = std::make_shared<State>(executor);
  state->name = start.subscription();
  state->generation = grant->generation;
  state->sent = grant->acknowledged;
  state->acknowledged = grant->acknowledged;
  v1::SubscribeResponse started;
  started.mutable_started()->set_generation(state->generation);
  started.mutable_started()->set_epoch(feed.info().epoch);
  started.mutable_started()->set_partitions(feed.info().partitions);
  const bool written = co_await stream->Write(started);
  grpc::Status status = grpc::Status::CANCELLED;
  if (written) {
    async::Spawn(executor, ReadAcknowledgements(stream, state, feed));
    const int window = start.max_unacknowledged() == 0 ? kDefaultWindow : start.max_unacknowledged();
    status = co_await SendLoop(*stream, *state, feed, holder, window, draining);
  }
  // So that the next subscriber need not wait for the lease; if this fails, the lease runs out.
  (co_await feed.Leave(state->name, state->generation)).IgnoreError();
  co_return status;
}

}  // namespace poststelle::fetcher
