#include "services/fetcher/subscriber.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "libs/base/failpoint.h"
#include "libs/rpc/status.h"
#include "services/fetcher/names.h"

namespace poststelle::fetcher {
namespace {

constexpr absl::Duration kHeartbeat = absl::Seconds(10);
// How often the stream looks up by itself: whether the service drains, whether a pause is over.
constexpr absl::Duration kLookUp = absl::Milliseconds(200);
constexpr int kDefaultWindow = 100;
constexpr int kMaxWindow = 10'000;
constexpr int kDefaultRefusals = 5;
constexpr int kMaxRefusals = 1'000;
constexpr int kReadAtOnce = 50;
constexpr size_t kMaxReason = 1'000;

void Wrong(std::vector<rpc::Violation>& violations, const std::string& field, const std::string& description) {
  rpc::Violation violation;
  violation.field = field;
  violation.description = description;
  violations.push_back(std::move(violation));
}

grpc::Status CheckStart(const v1::SubscribeRequest& request) {
  std::vector<rpc::Violation> violations;
  if (!request.has_start()) {
    Wrong(violations, "start", "must be the first message");
    return rpc::InvalidFields(violations);
  }
  const v1::SubscribeRequest::Start& start = request.start();
  if (!IsSubscriptionName(start.subscription())) {
    Wrong(violations, "start.subscription", "must have 1 to 63 characters of a-z, 0-9 and hyphen");
  }
  if (!v1::SubscribeRequest::Start::From_IsValid(start.from())) {
    Wrong(violations, "start.from", "must be FROM_BEGINNING, FROM_NOW or not given");
  }
  if (start.max_unacknowledged() < 0 || start.max_unacknowledged() > kMaxWindow) {
    Wrong(violations, "start.max_unacknowledged", absl::StrCat("must be 1 to ", kMaxWindow));
  }
  if (start.max_refusals() < 0 || start.max_refusals() > kMaxRefusals) {
    Wrong(violations, "start.max_refusals", absl::StrCat("must be 1 to ", kMaxRefusals));
  }
  return violations.empty() ? grpc::Status::OK : rpc::InvalidFields(violations);
}

// At most `max_bytes` of it, never half a character.
std::string Cut(const std::string& text, size_t max_bytes) {
  size_t end = std::min(text.size(), max_bytes);
  while (end < text.size() && end > 0 && (text[end] & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

struct Session {
  std::shared_ptr<SubscribeStream> stream;
  std::shared_ptr<Member> member;
  TicketFeed& feed;
  FeedHub& hub;
  int window = kDefaultWindow;
  int max_refusals = kDefaultRefusals;
  int last_partition = -1;                            // that was sent of
  std::optional<grpc::Status> broken = std::nullopt;  // guarded by member->mutex: what was wrong with a request
};

// An acknowledgement or a refusal.
grpc::Status TakeStep(const v1::SubscribeRequest& request, Session& session) {
  const bool refuses = request.has_refuse();
  if (!refuses && !request.has_acknowledge()) {
    return rpc::InvalidFields({{"request", "must be acknowledge or refuse after the first message"}});
  }
  const std::string field = refuses ? "refuse" : "acknowledge";
  const v1::Position& position = refuses ? request.refuse().position() : request.acknowledge().position();
  if (!position.epoch().empty() && position.epoch() != session.feed.info().epoch) {
    return rpc::Error(grpc::StatusCode::OUT_OF_RANGE, "EPOCH_CHANGED", "the position is of another history of the feed",
                      {{"epoch", session.feed.info().epoch}});
  }
  std::vector<rpc::Violation> violations;
  if (position.partition() < 0 || position.partition() >= session.feed.info().partitions || position.offset() < 1) {
    Wrong(violations, field + ".position", "names an event that was not sent on this stream");
  }
  if (request.refuse().reason().find('\0') != std::string::npos)
    Wrong(violations, field + ".reason", "must have no NUL");
  if (!violations.empty()) return rpc::InvalidFields(violations);
  Subscriptions::Step step;
  step.partition = position.partition();
  step.generation = refuses ? request.refuse().generation() : request.acknowledge().generation();
  step.offset = position.offset();
  if (refuses) {
    Subscriptions::Refusal refusal;
    refusal.reason = Cut(request.refuse().reason(), kMaxReason);
    refusal.max_refusals = session.max_refusals;
    step.refusal = std::move(refusal);
  }
  {
    Member& member = *session.member;
    std::lock_guard lock(member.mutex);
    auto it = member.parts.find(step.partition);
    if (it != member.parts.end() && it->second.generation == step.generation) {
      Member::Part& part = it->second;
      if (step.offset > part.sent) {
        return rpc::InvalidFields({{field + ".position", "names an event that was not sent on this stream"}});
      }
      // Behind a refused event everything is void: a late acknowledgement must not pass over it.
      if (part.refused != 0 && step.offset >= part.refused) return grpc::Status::OK;
      if (refuses) part.refused = step.offset;
    }
    // Another generation is refused by the database.
  }
  session.hub.Submit(session.member, std::move(step));
  return grpc::Status::OK;
}

async::Task<void> ReadRequests(std::shared_ptr<Session> session) {
  while (true) {
    std::optional<v1::SubscribeRequest> request = co_await session->stream->Read();
    const grpc::Status status = request ? TakeStep(*request, *session) : grpc::Status::OK;
    if (request && status.ok()) continue;
    {
      std::lock_guard lock(session->member->mutex);
      session->member->ended = true;
      if (!status.ok()) session->broken = status;
    }
    session->member->changed.Notify();
    co_return;
  }
}

// What there is to send now.
struct Next {
  std::deque<v1::SubscribeResponse> first;
  int partition = -1;
  int64_t generation = 0;
  int64_t after = 0;
  int64_t room = 0;
};

// Whatever is in the outbox, or else the next partition in turn that has something.
Next WhatNext(Session& session) {
  Next next;
  Member& member = *session.member;
  const std::shared_ptr<const Offsets> heads = session.hub.Heads();
  std::lock_guard lock(member.mutex);
  next.first.swap(member.outbox);
  if (!next.first.empty()) return next;
  next.room = session.window;
  for (const auto& [partition, part] : member.parts) next.room -= part.sent - part.acknowledged;
  if (next.room <= 0) return next;
  auto has_something = [&](int partition, const Member::Part& part) {
    auto head = heads->find(partition);
    if (part.wanted || part.refused != 0 || head == heads->end() || head->second <= part.sent) return false;
    auto pause = member.pauses.find(partition);
    if (pause == member.pauses.end()) return true;
    if (pause->second > absl::Now()) return false;
    member.pauses.erase(pause);
    return true;
  };
  auto it = member.parts.upper_bound(session.last_partition);
  for (size_t i = 0; i < member.parts.size(); ++i, ++it) {
    if (it == member.parts.end()) it = member.parts.begin();
    if (!has_something(it->first, it->second)) continue;
    next.partition = it->first;
    next.generation = it->second.generation;
    next.after = it->second.sent;
    break;
  }
  return next;
}

// Counts an event as sent, before it is: an acknowledgement may overtake us. False if it must not be sent any more.
bool CountAsSent(Member& member, const Next& next, int64_t offset) {
  std::lock_guard lock(member.mutex);
  auto it = member.parts.find(next.partition);
  if (it == member.parts.end() || it->second.generation != next.generation) return false;
  if (it->second.wanted || it->second.refused != 0) return false;
  it->second.sent = offset;
  return true;
}

// Returns whether there was anything; kCancelled if the client is gone.
async::Task<absl::StatusOr<bool>> SendNext(Session& session) {
  Next next = WhatNext(session);
  for (const v1::SubscribeResponse& response : next.first) {
    const bool written = co_await session.stream->Write(response);
    if (!written) co_return absl::CancelledError("the client is gone");
  }
  if (!next.first.empty()) co_return true;
  if (next.partition < 0) co_return false;
  session.last_partition = next.partition;
  auto page = co_await session.feed.ReadPartition(next.partition, next.after,
                                                  static_cast<int>(std::min<int64_t>(next.room, kReadAtOnce)));
  if (!page.ok()) co_return page.status();
  for (v1::TicketEvent& event : page->events) {
    const int64_t offset = event.position().offset();
    if (!CountAsSent(*session.member, next, offset)) break;
    if (DeliberatelyBroken("cursor_before_acknowledgement")) {
      Subscriptions::Step step;
      step.partition = next.partition;
      step.generation = next.generation;
      step.offset = offset;
      session.hub.Submit(session.member, std::move(step));
    }
    v1::SubscribeResponse response;
    *response.mutable_delivery()->mutable_event() = std::move(event);
    response.mutable_delivery()->set_generation(next.generation);
    const bool written = co_await session.stream->Write(response);
    if (!written) co_return absl::CancelledError("the client is gone");
  }
  co_return !page->events.empty();
}

async::Task<grpc::Status> SendLoop(Session& session, const std::atomic<bool>& draining) {
  Member& member = *session.member;
  absl::Time spoken = absl::Now();
  bool stands_by = false;
  while (true) {
    bool idle = false;
    {
      std::lock_guard lock(member.mutex);
      if (member.failed) co_return rpc::FromAbsl(*member.failed);
      if (member.ended) co_return session.broken.value_or(grpc::Status::OK);
      idle = member.idle && member.outbox.empty();
    }
    if (session.stream->cancelled()) co_return grpc::Status::CANCELLED;
    if (draining) co_return rpc::Error(grpc::StatusCode::UNAVAILABLE, "DRAINING", "the service is shutting down");
    const absl::StatusOr<bool> sent = co_await SendNext(session);
    if (absl::IsCancelled(sent.status())) co_return grpc::Status::CANCELLED;
    if (!sent.ok()) co_return rpc::FromAbsl(sent.status());
    if (*sent) {
      spoken = absl::Now();
      stands_by = false;
      continue;
    }
    const bool begins_to_wait = idle && !stands_by;
    if (begins_to_wait || absl::Now() - spoken > kHeartbeat) {
      v1::SubscribeResponse word;
      if (begins_to_wait) {
        word.mutable_standby();
      } else {
        word.mutable_heartbeat();
      }
      const bool written = co_await session.stream->Write(word);
      if (!written) co_return grpc::Status::CANCELLED;
      spoken = absl::Now();
      stands_by = idle;
    }
    (co_await member.changed.Wait(kLookUp)).IgnoreError();
  }
}

}  // namespace

async::Task<grpc::Status> ServeSubscriber(std::shared_ptr<SubscribeStream> stream, async::TaskScope& scope,
                                          TicketFeed& feed, FeedHub& hub, const std::atomic<bool>& draining) {
  std::optional<v1::SubscribeRequest> first = co_await stream->Read();
  // Whoever leaves without a word does not hear it either.
  grpc::Status checked = CheckStart(first.value_or(v1::SubscribeRequest()));
  if (!checked.ok()) co_return checked;
  const v1::SubscribeRequest::Start& start = first->start();
  auto member = co_await hub.Join(start.subscription(), start.from() == v1::SubscribeRequest::Start::FROM_NOW);
  if (!member.ok()) co_return rpc::FromAbsl(member.status());
  auto session = std::make_shared<Session>(Session{stream, *member, feed, hub});
  if (start.max_unacknowledged() != 0) session->window = start.max_unacknowledged();
  if (start.max_refusals() != 0) session->max_refusals = start.max_refusals();
  v1::SubscribeResponse started;
  started.mutable_started()->set_epoch(feed.info().epoch);
  started.mutable_started()->set_partitions(feed.info().partitions);
  const bool written = co_await stream->Write(started);
  grpc::Status status = grpc::Status::CANCELLED;
  if (written) {
    scope.Spawn(ReadRequests(session));
    status = co_await SendLoop(*session, draining);
  }
  const absl::Status left = co_await hub.Leave(*member);
  if (status.ok() && !left.ok()) co_return rpc::FromAbsl(left);
  co_return status;
}

}  // namespace poststelle::fetcher
