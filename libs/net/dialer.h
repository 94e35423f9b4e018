// Opens streams: resolves a name (c-ares), connects to one address after the other, within one deadline.
#pragma once

#include <asio/any_io_executor.hpp>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "libs/net/stream.h"

namespace poststelle::net {

// Seam for tests. Thread-safe.
class Dialer {
 public:
  virtual ~Dialer() = default;
  // A connected TCP stream to host:port. Errors name the host, the phase and each address tried.
  virtual asio::awaitable<absl::StatusOr<std::unique_ptr<Stream>>> Dial(const std::string& host, uint16_t port,
                                                                        absl::Duration timeout) = 0;
};

// The real one. Streams it makes share TLS contexts per trust store (loading the system's store once).
// `executor` runs all of its I/O. Thread-safe.
std::unique_ptr<Dialer> MakeTcpDialer(asio::any_io_executor executor);

}  // namespace poststelle::net
