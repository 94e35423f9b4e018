// Redis Cluster for coroutines; a single server works as well.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "libs/async/runtime.h"
#include "libs/net/dialer.h"
#include "libs/redis/address.h"
#include "libs/redis/node.h"
#include "libs/redis/routed_commands.h"
#include "libs/redis/slot_map.h"

namespace poststelle::redis {

// Learns from any of the address' nodes who serves which slot (CLUSTER SLOTS), keeps one pipelined connection to each
// master and none to replicas, follows redirections, and learns anew when a node fails or the map proves wrong. A
// server that is no cluster serves all slots; if it becomes one, its first MOVED tells. Thread-safe; every call must
// have returned before it dies. Errors: see Commands. Commands to a master that died fail with kUnavailable until its
// replica has taken over.
class ClusterClient : public RoutedCommands {
 public:
  static constexpr int kMaxRedirects = 5;  // MOVED and ASK of one call
  static constexpr int kMaxRetries = 6;    // of one call on TRYAGAIN, CLUSTERDOWN and the like, 2 s in all
  static constexpr size_t kMaxAsked = 16;  // nodes asked for the map in one round
  static constexpr absl::Duration kAskTimeout = absl::Seconds(1);             // for each of them
  static constexpr absl::Duration kRefreshEvery = absl::Minutes(1);           // without any sign of a change
  static constexpr absl::Duration kRefreshSpacing = absl::Milliseconds(100);  // at least, between rounds

  // `on_health` is told when connected() changes; from any thread, must not block nor call back.
  ClusterClient(
      asio::any_io_executor executor, net::Dialer& dialer, Address address,
      std::function<void(bool)> on_health = [](bool) {});
  ~ClusterClient() override;  // Stop()
  // Every slot has a master and every master is connected.
  bool connected() const;
  // Fails what is pending and ends the connections. Blocking; not from a coroutine.
  void Stop();

 private:
  using NodeRef = std::shared_ptr<Node>;
  async::Task<absl::StatusOr<Answer>> Route(int slot, std::string bytes, absl::Time deadline) override;
  // Who serves `slot` (negative: anybody), by the present map. Waits for the first map.
  async::Task<absl::StatusOr<NodeRef>> Find(int slot, absl::Time deadline);
  // The node at `endpoint`, made if need be; null once stopped.
  NodeRef NodeAt(const Endpoint& endpoint);
  NodeRef NodeAtLocked(const Endpoint& endpoint);
  void Moved(const Redirect& redirect);
  // Asks for a round that learns the map anew, and waits for the end of one. Its status; kCancelled, kDeadlineExceeded.
  async::Task<absl::Status> Refresh(absl::Time deadline);
  async::Task<void> RefreshLoop();
  async::Task<absl::Status> RefreshOnce();
  async::Task<absl::StatusOr<SlotMap>> Ask(Endpoint endpoint);
  std::vector<Endpoint> Candidates() const;
  void Install(SlotMap map);
  bool single() const;
  void ReportHealth();

  const asio::any_io_executor executor_;
  net::Dialer& dialer_;
  const Address address_;
  const std::function<void(bool)> on_health_;
  async::Event wanted_;  // a round of RefreshLoop

  mutable std::mutex mutex_;
  std::shared_ptr<const SlotMap> map_;                   // guarded; null until the first round succeeded
  std::map<Endpoint, NodeRef> nodes_;                    // guarded: masters, and where a redirection led
  std::vector<std::shared_ptr<async::Event>> awaiting_;  // guarded: whom the end of a round wakes
  absl::Status last_round_;                              // guarded
  bool single_ = false;                                  // guarded: the map is that of a server that is no cluster
  bool stopped_ = false;                                 // guarded

  std::mutex health_mutex_;  // orders the reports; taken before mutex_
  bool reported_ = false;    // guarded by health_mutex_

  async::TaskScope scope_;
};

}  // namespace poststelle::redis
