// Names to addresses, with c-ares on a thread of its own.
#pragma once

#include <asio/ip/address.hpp>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"

namespace poststelle::net {

// Thread-safe. Asks /etc/hosts first, then the configured name servers.
class Resolver {
 public:
  explicit Resolver(asio::any_io_executor executor);
  ~Resolver();
  // Every address of `host`; an IP literal is returned as it is. kResolve if there is none, kTimeout after `timeout`.
  async::Task<absl::StatusOr<std::vector<asio::ip::address>>> Resolve(std::string host, absl::Duration timeout);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  const asio::any_io_executor executor_;
};

}  // namespace poststelle::net
