// Opens streams: resolves a name, connects to one address after the other, within one deadline.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

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
  virtual asio::awaitable<absl::StatusOr<std::unique_ptr<Stream>>> Dial(const std::string& host, uint16_t port,
                                                                        absl::Duration timeout) = 0;
};

// The real one. A name is looked up once for each Dial, and of its addresses those that `policy` allows are connected
// to: EgressPolicy() where callers choose the host, Unrestricted() where the operator of this installation does. If
// there is none, no packet is sent. Streams it makes share TLS contexts per trust store (loading the system's store
// once). Thread-safe.
std::unique_ptr<Dialer> MakeTcpDialer(std::shared_ptr<Resolver> resolver, EgressPolicy policy);

}  // namespace poststelle::net
