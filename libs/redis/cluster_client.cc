#include "libs/redis/cluster_client.h"

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "libs/base/status_macros.h"
#include "libs/redis/backoff.h"
#include "libs/redis/connection.h"

namespace poststelle::redis {
namespace {

constexpr absl::Duration kLeastPause = absl::Milliseconds(20);
constexpr absl::Duration kMostPause = absl::Milliseconds(500);

// What passes by itself in a moment, and of which Redis says that nothing was done.
bool Passing(const std::string& code) {
  return code == "TRYAGAIN" || code == "CLUSTERDOWN" || code == "LOADING" || code == "MASTERDOWN" || code == "READONLY";
}

absl::Status Stopped() { return absl::CancelledError("the Redis client was stopped"); }

}  // namespace

ClusterClient::ClusterClient(asio::any_io_executor executor, net::Dialer& dialer, Address address,
                             std::function<void(bool)> on_health)
    : RoutedCommands(address.timeout),
      executor_(executor),
      dialer_(dialer),
      address_(std::move(address)),
      on_health_(std::move(on_health)),
      wanted_(executor),
      scope_(executor) {
  scope_.Spawn(RefreshLoop());
}

ClusterClient::~ClusterClient() { Stop(); }

void ClusterClient::Stop() {
  std::vector<NodeRef> nodes;
  std::vector<std::shared_ptr<async::Event>> awaiting;
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    last_round_ = Stopped();
    for (const auto& [endpoint, node] : nodes_) nodes.push_back(node);
    awaiting.swap(awaiting_);
  }
  for (const NodeRef& node : nodes) node->Stop(Stopped());
  for (const auto& event : awaiting) event->Notify();
  scope_.Cancel();
  scope_.JoinBlocking();
}

bool ClusterClient::connected() const {
  std::lock_guard lock(mutex_);
  if (stopped_ || map_ == nullptr || !map_->complete()) return false;
  return std::all_of(map_->masters.begin(), map_->masters.end(), [this](const Endpoint& master) {
    const auto node = nodes_.find(master);
    return node != nodes_.end() && node->second->connected();
  });
}

void ClusterClient::ReportHealth() {
  std::lock_guard lock(health_mutex_);
  const bool now = connected();
  if (now == reported_) return;
  reported_ = now;
  on_health_(now);
}

bool ClusterClient::single() const {
  std::lock_guard lock(mutex_);
  return single_;
}

ClusterClient::NodeRef ClusterClient::NodeAt(const Endpoint& endpoint) {
  std::lock_guard lock(mutex_);
  return NodeAtLocked(endpoint);
}

ClusterClient::NodeRef ClusterClient::NodeAtLocked(const Endpoint& endpoint) {
  if (stopped_) return nullptr;
  NodeRef& node = nodes_[endpoint];
  if (node == nullptr) {
    // Serve, which reports, is joined before this object dies.
    node = std::make_shared<Node>(executor_, dialer_, address_, endpoint, [this](bool up) {
      if (!up) wanted_.Notify();
      ReportHealth();
    });
    scope_.Spawn(Node::Serve(node));
  }
  return node;
}

async::Task<absl::StatusOr<ClusterClient::NodeRef>> ClusterClient::Find(int slot, absl::Time deadline) {
  while (true) {
    {
      std::lock_guard lock(mutex_);
      if (stopped_) co_return Stopped();
      if (map_ != nullptr && slot >= 0) {
        const Endpoint* owner = map_->OwnerOf(slot);
        if (owner != nullptr) co_return NodeAtLocked(*owner);
      } else if (map_ != nullptr && !map_->masters.empty()) {
        for (const Endpoint& master : map_->masters) {
          const NodeRef node = NodeAtLocked(master);
          if (node->connected()) co_return node;
        }
        co_return NodeAtLocked(map_->masters.front());
      }
    }
    const bool known = [this] {
      std::lock_guard lock(mutex_);
      return map_ != nullptr;
    }();
    const absl::Status refreshed = co_await Refresh(deadline);
    if (absl::IsDeadlineExceeded(refreshed)) co_return absl::UnavailableError("no node of Redis answered in time");
    PS_CO_RETURN_IF_ERROR(refreshed);
    if (known) {
      std::lock_guard lock(mutex_);
      if (slot < 0 || map_->OwnerOf(slot) == nullptr) {
        co_return absl::UnavailableError("no node of the Redis cluster serves the key's slot");
      }
    }
  }
}

async::Task<absl::StatusOr<Answer>> ClusterClient::Route(int slot, std::string bytes, absl::Time deadline) {
  static const std::string kAsking = Format({"ASKING"});
  Backoff pause(kLeastPause, kMostPause);
  int redirects = 0;
  int retries = 0;
  NodeRef node;  // where a redirection leads; null: by the map
  bool asking = false;
  while (true) {
    if (node == nullptr) {
      PS_CO_ASSIGN_OR_RETURN(node, co_await Find(slot, deadline));
    }
    Node::Outcome outcome = co_await node->Send(asking ? kAsking + bytes : bytes, asking ? 2 : 1, deadline);
    asking = false;
    if (!outcome.answer.ok()) {
      if (!absl::IsUnavailable(outcome.answer.status())) co_return std::move(outcome.answer);
      wanted_.Notify();
      // What was written perhaps was done: the caller decides.
      if (outcome.written || single()) co_return std::move(outcome.answer);
      const absl::Status refreshed = co_await Refresh(deadline);
      if (absl::IsCancelled(refreshed)) co_return refreshed;
      if (!refreshed.ok() || ++retries > kMaxRetries) co_return std::move(outcome.answer);
      PS_CO_ASSIGN_OR_RETURN(NodeRef other, co_await Find(slot, deadline));
      if (other == node) co_return std::move(outcome.answer);
      node = std::move(other);
      continue;
    }
    const std::string code = ErrorCode(outcome.answer->error);
    if (code == "MOVED" || code == "ASK") {
      if (++redirects > kMaxRedirects) {
        co_return absl::UnavailableError("Redis redirected the command again and again");
      }
      PS_CO_ASSIGN_OR_RETURN(const Redirect redirect, ParseRedirect(outcome.answer->error, node->endpoint()));
      asking = code == "ASK";
      if (!asking) Moved(redirect);
      node = NodeAt(redirect.target);
      if (node == nullptr) co_return Stopped();
      continue;
    }
    if (!Passing(code)) co_return std::move(outcome.answer);
    // A replica that was a master: the map tells who is it now, and outside a cluster perhaps the name does.
    if (code == "READONLY" && single()) node->Reconnect();
    if (++retries > kMaxRetries || absl::Now() + kMostPause >= deadline) co_return std::move(outcome.answer);
    if (code == "READONLY" || code == "CLUSTERDOWN") wanted_.Notify();
    PS_CO_RETURN_IF_ERROR(co_await async::Sleep(pause.Next()));
    node = nullptr;
  }
}

// The one slot at once, so that the next command goes right; the others follow with the round that it asks for.
void ClusterClient::Moved(const Redirect& redirect) {
  {
    std::lock_guard lock(mutex_);
    if (map_ == nullptr) return;
    auto changed = std::make_shared<SlotMap>(*map_);
    changed->Assign(redirect.slot, redirect.slot, redirect.target);
    map_ = std::move(changed);
  }
  wanted_.Notify();
}

async::Task<absl::Status> ClusterClient::Refresh(absl::Time deadline) {
  auto ended = std::make_shared<async::Event>(executor_);
  {
    std::lock_guard lock(mutex_);
    if (stopped_) co_return Stopped();
    awaiting_.push_back(ended);
  }
  wanted_.Notify();
  const absl::Status waited = co_await ended->Wait(deadline - absl::Now());
  std::lock_guard lock(mutex_);
  std::erase(awaiting_, ended);
  if (!waited.ok()) co_return waited;
  co_return last_round_;
}

async::Task<void> ClusterClient::RefreshLoop() {
  Backoff backoff(kRefreshSpacing, Node::kMostBackoff);
  while (true) {
    const absl::Status status = co_await RefreshOnce();
    std::vector<std::shared_ptr<async::Event>> awaiting;
    {
      std::lock_guard lock(mutex_);
      if (stopped_) co_return;
      last_round_ = status;
      awaiting.swap(awaiting_);
    }
    for (const auto& event : awaiting) event->Notify();
    ReportHealth();
    if (status.ok()) {
      backoff.Reset();
      const absl::Status woken = co_await wanted_.Wait(kRefreshEvery);
      if (absl::IsCancelled(woken)) co_return;
    }
    const absl::Status slept = co_await async::Sleep(backoff.Next());
    if (!slept.ok()) co_return;
  }
}

// Whom to ask, best first: connected masters, then everybody known in any order.
std::vector<Endpoint> ClusterClient::Candidates() const {
  std::vector<Endpoint> connected, others = address_.nodes;
  {
    std::lock_guard lock(mutex_);
    if (map_ != nullptr) {
      for (const Endpoint& master : map_->masters) {
        const auto node = nodes_.find(master);
        (node != nodes_.end() && node->second->connected() ? connected : others).push_back(master);
      }
      others.insert(others.end(), map_->replicas.begin(), map_->replicas.end());
    }
  }
  std::minstd_rand random{std::random_device()()};
  std::shuffle(connected.begin(), connected.end(), random);
  std::shuffle(others.begin(), others.end(), random);
  for (Endpoint& other : others) {
    if (std::find(connected.begin(), connected.end(), other) == connected.end()) connected.push_back(std::move(other));
  }
  if (connected.size() > kMaxAsked) connected.resize(kMaxAsked);
  return connected;
}

async::Task<absl::Status> ClusterClient::RefreshOnce() {
  absl::Status last = absl::UnavailableError("no node of Redis is known");
  for (const Endpoint& endpoint : Candidates()) {
    absl::StatusOr<SlotMap> map = co_await Ask(endpoint);
    if (map.ok()) {
      Install(*std::move(map));
      co_return absl::OkStatus();
    }
    const absl::StatusCode code = absl::IsFailedPrecondition(map.status()) ? absl::StatusCode::kFailedPrecondition
                                                                           : absl::StatusCode::kUnavailable;
    last =
        absl::Status(code, absl::StrCat("Redis at ", endpoint.ToString(), ": ", std::string(map.status().message())));
    std::lock_guard lock(mutex_);
    if (stopped_) co_return Stopped();
  }
  co_return last;
}

// On a connection of its own: the pipelined ones may be stuck, and replicas have none.
async::Task<absl::StatusOr<SlotMap>> ClusterClient::Ask(Endpoint endpoint) {
  const absl::Time deadline = absl::Now() + std::min(kAskTimeout, address_.timeout);
  PS_CO_ASSIGN_OR_RETURN(std::unique_ptr<Connection> connection,
                         co_await Connection::Open(dialer_, address_, endpoint, deadline));
  std::vector<std::string> command{"CLUSTER", "SLOTS"};
  PS_CO_ASSIGN_OR_RETURN(Answer answer, co_await connection->Call(std::move(command), deadline));
  const std::string code = ErrorCode(answer.error);
  // "ERR This instance has cluster support disabled", a proxy that knows no CLUSTER, a user who may not ask.
  if (code == "ERR" || code == "NOPERM") {
    if (address_.cluster) co_return absl::FailedPreconditionError(absl::StrCat("it is no cluster: ", answer.error));
    co_return SlotMap::Single(endpoint);
  }
  PS_CO_ASSIGN_OR_RETURN(Reply reply, ToResult(std::move(answer)));
  PS_CO_ASSIGN_OR_RETURN(SlotMap map, ParseSlots(reply, endpoint));
  if (map.masters.empty()) co_return absl::UnavailableError("it is in cluster mode and knows no slots");
  co_return map;
}

void ClusterClient::Install(SlotMap map) {
  std::vector<NodeRef> retired;
  {
    std::lock_guard lock(mutex_);
    if (stopped_) return;
    single_ = map.single;
    for (const Endpoint& master : map.masters) NodeAtLocked(master);
    for (auto node = nodes_.begin(); node != nodes_.end();) {
      // What is still used (a redirection's target that owns no slot yet) is looked at again in the next round.
      if (std::find(map.masters.begin(), map.masters.end(), node->first) != map.masters.end() ||
          !node->second->idle()) {
        ++node;
        continue;
      }
      retired.push_back(std::move(node->second));
      node = nodes_.erase(node);
    }
    map_ = std::make_shared<const SlotMap>(std::move(map));
  }
  for (const NodeRef& node : retired) {
    node->Stop(
        absl::UnavailableError(absl::StrCat("Redis at ", node->endpoint().ToString(), " is no master any more")));
  }
}

}  // namespace poststelle::redis
