// Names to addresses.
#pragma once

#include <asio/ip/address.hpp>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"

namespace poststelle::net {

// Seam for tests. Thread-safe.
class Resolver {
 public:
  virtual ~Resolver() = default;
  // Every address of `host`. kResolve if there is none, kTimeout after `timeout`.
  virtual async::Task<absl::StatusOr<std::vector<asio::ip::address>>> Resolve(std::string host,
                                                                              absl::Duration timeout) = 0;
};

// The real one, c-ares on a thread of its own: asks /etc/hosts first, then the configured name servers. An IP address
// is no name; nobody is asked for it, however it is spelled (also 127.1, 0x7f000001 and the like).
// `name_servers`: ADDRESS[:PORT], separated by commas, to be asked instead of the configured ones.
std::unique_ptr<Resolver> MakeResolver(asio::any_io_executor executor, const std::string& name_servers = "");

// Says what is wrong with one entry of `name_servers`.
absl::Status CheckNameServer(const std::string& name_server);

}  // namespace poststelle::net
