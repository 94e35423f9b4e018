// Redis for coroutines: one server, one connection, commands of many callers pipelined over it.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "libs/async/runtime.h"
#include "libs/net/dialer.h"
#include "libs/redis/address.h"
#include "libs/redis/node.h"
#include "libs/redis/routed_commands.h"

namespace poststelle::redis {

// The first node of the address, and only that. Thread-safe. Connects at once, and again after a failure. Errors: see
// Commands. For a server that may turn out to be part of a cluster, ClusterClient.
class Client : public RoutedCommands {
 public:
  // `on_health` is told when the connection comes and goes; from any thread, must not block.
  Client(
      const asio::any_io_executor& executor, net::Dialer& dialer, const Address& address,
      std::function<void(bool)> on_health = [](bool) {});
  ~Client() override;  // Stop()
  bool connected() const { return node_->connected(); }
  // Fails what is pending and ends the connection. Blocking; not from a coroutine.
  void Stop();

 private:
  async::Task<absl::StatusOr<Answer>> Route(int slot, std::string bytes, absl::Time deadline) override;

  const std::shared_ptr<Node> node_;
  async::TaskScope scope_;
};

}  // namespace poststelle::redis
