#include "libs/redis/client.h"

#include "libs/base/status_macros.h"

namespace poststelle::redis {

Client::Client(const asio::any_io_executor& executor, net::Dialer& dialer, const Address& address,
               std::function<void(bool)> on_health)
    : RoutedCommands(address.timeout),
      node_(std::make_shared<Node>(executor, dialer, address, address.nodes.front(), std::move(on_health))),
      scope_(executor) {
  scope_.Spawn(Node::Serve(node_));
}

Client::~Client() { Stop(); }

void Client::Stop() {
  node_->Stop(absl::CancelledError("the Redis client was stopped"));
  scope_.Cancel();
  scope_.JoinBlocking();
}

async::Task<absl::StatusOr<Answer>> Client::Route(int, std::string bytes, absl::Time deadline) {
  Node::Outcome outcome = co_await node_->Send(std::move(bytes), 1, deadline);
  // A replica by now: perhaps the name leads to its master.
  if (outcome.answer.ok() && ErrorCode(outcome.answer->error) == "READONLY") node_->Reconnect();
  co_return std::move(outcome.answer);
}

}  // namespace poststelle::redis
