// What a domain announces in DNS beside addresses: services (SRV) and who receives its mail (MX).
#pragma once

#include <asio/any_io_executor.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"

namespace poststelle::net {

// A service's place (RFC 2782).
struct ServiceRecord {
  std::string host;
  uint16_t port = 0;
  uint16_t priority = 0;
  uint16_t weight = 0;
};

// Seam for tests. Thread-safe. Each lookup: empty if there are no such records, or no such name; kResolve if no name
// server has a proper answer, kTimeout after `timeout`.
class DnsRecords {
 public:
  virtual ~DnsRecords() = default;
  // The places of `name`, for example `_imaps._tcp.example.org`, by priority, then the greater weight first. The choice
  // by lot that RFC 2782 asks for among equal priorities is the caller's. A target of `.` (RFC 2782: the service is
  // decidedly not offered) is left out, and so is what is no host name.
  virtual async::Task<absl::StatusOr<std::vector<ServiceRecord>>> Services(std::string name,
                                                                           absl::Duration timeout) = 0;
  // The hosts that receive the domain's mail, by preference. A null MX (RFC 7505) is left out.
  virtual async::Task<absl::StatusOr<std::vector<std::string>>> MailExchangers(std::string domain,
                                                                               absl::Duration timeout) = 0;
};

// The real one, c-ares on a thread of its own. `name_servers` as in MakeResolver.
std::unique_ptr<DnsRecords> MakeDnsRecords(asio::any_io_executor executor, const std::string& name_servers = "");

}  // namespace poststelle::net
