// One Redis server and the one connection to it, over which the commands of many callers are pipelined.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"
#include "libs/net/dialer.h"
#include "libs/redis/address.h"
#include "libs/redis/protocol.h"

namespace poststelle::redis {

class Connection;

// Connects by itself and again after a failure, with backoff; gives a connection up that owes an answer for longer than
// the address' timeout. Shared by its owner, by Serve, and by the calls under
// way. Thread-safe.
class Node {
 public:
  static constexpr absl::Duration kConnectTimeout = absl::Seconds(3);
  static constexpr absl::Duration kLeastBackoff = absl::Milliseconds(50);
  static constexpr absl::Duration kMostBackoff = absl::Seconds(2);
  static constexpr size_t kMaxPending = 10'000;   // commands that wait, written or not
  static constexpr size_t kMaxWrite = 256 << 10;  // bytes written before answers are read again

  // `address` says how to sign in. `on_change` is told when the connection came (true) or went; called from any thread,
  // must not block and not call back into the node.
  Node(asio::any_io_executor executor, net::Dialer& dialer, const Address& address, Endpoint endpoint,
       std::function<void(bool)> on_change);

  struct Outcome {
    absl::StatusOr<Answer> answer;  // failed: the connection, the deadline, cancellation; not Redis' error answers
    bool written = false;           // the server may have carried it out
  };
  // Sends `bytes`, formatted commands that `answers` answers belong to; the last one is the outcome.
  async::Task<Outcome> Send(std::string bytes, int answers, absl::Time deadline);
  // Keeps the connection until Stop or cancellation; spawn it once, in the owner's scope.
  static async::Task<void> Serve(std::shared_ptr<Node> self);
  // Fails what is pending and every later Send with `status`; Serve ends soon after.
  void Stop(const absl::Status& status);
  // Gives the present connection up and makes a new one: the name may lead elsewhere by now.
  void Reconnect();
  bool connected() const;
  bool idle() const;  // no command waits
  const Endpoint& endpoint() const { return endpoint_; }

 private:
  struct Pending;
  async::Task<absl::Status> Exchange(Connection& connection);
  // What is to be written next goes to `out` and to waiting_. kUnavailable when the connection is to be given up.
  absl::Status TakeQueued(std::string& out, absl::Duration& timeout, bool& more);
  absl::Status Distribute(Connection& connection);
  void SetStream(net::Stream* stream);
  void FailAll(const absl::Status& status);
  void WakeLocked();
  absl::Status Explain(const absl::Status& status) const;

  const asio::any_io_executor executor_;
  net::Dialer& dialer_;
  const Address address_;
  const Endpoint endpoint_;
  const std::function<void(bool)> on_change_;

  mutable std::mutex mutex_;
  std::deque<std::shared_ptr<Pending>> queue_;    // guarded: to be written
  std::deque<std::shared_ptr<Pending>> waiting_;  // guarded: written, not answered
  net::Stream* stream_ = nullptr;                 // guarded: while connected
  bool woken_ = false;                            // guarded: Wake was called and Exchange has not looked yet
  bool give_up_ = false;                          // guarded: Reconnect was called
  bool stopped_ = false;                          // guarded
  absl::Status stop_status_;                      // guarded
  bool answered_ = false;                         // by this connection; Serve alone
};

}  // namespace poststelle::redis
