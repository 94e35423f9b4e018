#include "libs/net/dialer.h"

#include <asio/this_coro.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "libs/net/tcp_stream.h"

namespace poststelle::net {
namespace {

// Addresses tried for one name.
constexpr size_t kMaxAddresses = 8;

class TcpDialer : public Dialer {
 public:
  TcpDialer(std::shared_ptr<Resolver> resolver, EgressPolicy policy)
      : resolver_(std::move(resolver)), policy_(std::move(policy)), contexts_(std::make_shared<TlsContexts>()) {}

  asio::awaitable<absl::StatusOr<std::unique_ptr<Stream>>> Dial(const std::string& host, uint16_t port,
                                                                absl::Duration timeout,
                                                                OnAddresses on_addresses) override {
    const absl::Time deadline = absl::Now() + timeout;
    auto addresses = co_await resolver_->Resolve(host, timeout);
    if (!addresses.ok()) co_return addresses.status();
    std::erase_if(*addresses, [&](const asio::ip::address& address) { return !policy_.Allows(address, port); });
    if (addresses->empty()) {
      co_return MakeNetError(NetError::kEgress,
                             "the server address is not allowed by the egress policy of this installation.");
    }
    if (addresses->size() > kMaxAddresses) addresses->resize(kMaxAddresses);
    if (on_addresses) on_addresses(*addresses);
    // The sockets belong to the caller's own strand.
    asio::any_io_executor executor = co_await asio::this_coro::executor;
    std::vector<std::string> failures;
    NetError last = NetError::kConnect;
    for (size_t i = 0; i < addresses->size(); ++i) {
      // Each address gets its fair share of what is left.
      const absl::Duration share = (deadline - absl::Now()) / static_cast<int64_t>(addresses->size() - i);
      asio::ip::tcp::socket socket(executor);
      auto stream = std::make_unique<TcpStream>(std::move(socket), contexts_, absl::StrCat(host, ":", port));
      asio::ip::tcp::endpoint endpoint((*addresses)[i], port);
      absl::Status connected = co_await stream->Connect(endpoint, share);
      if (connected.ok()) co_return std::unique_ptr<Stream>(std::move(stream));
      last = GetNetError(connected);
      if (last == NetError::kCancelled) co_return connected;
      failures.emplace_back(connected.message());
    }
    co_return MakeNetError(
        last, absl::StrCat("no connection to ", host, " port ", port, ": ", absl::StrJoin(failures, "; "), "."));
  }

 private:
  const std::shared_ptr<Resolver> resolver_;  // other dialers may have it too
  const EgressPolicy policy_;
  std::shared_ptr<TlsContexts> contexts_;
};

}  // namespace

std::unique_ptr<Dialer> MakeTcpDialer(std::shared_ptr<Resolver> resolver, EgressPolicy policy) {
  return std::make_unique<TcpDialer>(std::move(resolver), std::move(policy));
}

}  // namespace poststelle::net
