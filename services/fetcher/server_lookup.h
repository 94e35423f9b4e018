// How a domain's mail servers are announced in DNS.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "libs/net/dns_records.h"
#include "poststelle/fetcher/v1/probe_service.pb.h"

namespace poststelle::fetcher {

// The records of `domain` (RFC 6186, RFC 8314) and its MX, all asked for at once. Servers with TLS from the first byte
// come before those that upgrade (RFC 8314 section 3). What can't be looked up counts as absent, unless nothing can:
// then kUnavailable with reason NAME_SERVERS_UNAVAILABLE.
async::Task<absl::StatusOr<v1::LookUpServersResponse>> LookUpServers(asio::any_io_executor executor,
                                                                     net::DnsRecords& records, std::string domain,
                                                                     absl::Duration timeout);

}  // namespace poststelle::fetcher
