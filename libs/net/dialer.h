// Opens streams: resolves a name, connects to one address after the other, within one deadline.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/net/egress_policy.h"
#include "libs/net/resolver.h"
#include "libs/net/stream.h"

namespace poststelle::net {

// Seam for tests. Thread-safe.
class Dialer {
 public:
  virtual ~Dialer() = default;
  // A connected TCP stream to host:port. Errors name the host, the phase and each address tried, except for kEgress,
  // which is the same for every address that the policy forbids and tells nothing of it.
  // `on_addresses` is told, by the caller's coroutine, the addresses that are going to be tried; not called where there
  // are none.
  using OnAddresses = std::function<void(const std::vector<asio::ip::address>&)>;
  virtual asio::awaitable<absl::StatusOr<std::unique_ptr<Stream>>> Dial(const std::string& host, uint16_t port,
                                                                        absl::Duration timeout,
                                                                        OnAddresses on_addresses) = 0;
  asio::awaitable<absl::StatusOr<std::unique_ptr<Stream>>> Dial(const std::string& host, uint16_t port,
                                                                absl::Duration timeout) {
    return Dial(host, port, timeout, nullptr);
  }
};

// The real one. A name is looked up once for each Dial, and of its addresses those that `policy` allows are connected
// to: EgressPolicy() where callers choose the host, Unrestricted() where the operator of this installation does. If
// there is none, no packet is sent. Streams it makes share TLS contexts per trust store (loading the system's store
// once). Thread-safe.
std::unique_ptr<Dialer> MakeTcpDialer(std::shared_ptr<Resolver> resolver, EgressPolicy policy);

}  // namespace poststelle::net
