// Where Redis is and how to sign in, as one URL.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "libs/base/secret_string.h"

namespace poststelle::redis {

struct Endpoint {
  std::string host;
  uint16_t port = 6379;
  std::string ToString() const;  // host:port, with brackets around an IPv6 address
  friend auto operator<=>(const Endpoint&, const Endpoint&) = default;
};

struct Address {
  std::vector<Endpoint> nodes;  // at least one; of a cluster any that are known, the others are found through them
  std::string user;             // empty: Redis' default user
  SecretString password;        // empty: no sign-in
  int database = 0;             // a cluster knows only 0
  bool tls = false;             // judged by the system's trust store, against the host's name
  bool cluster = false;         // it must be a cluster; false: whatever the server turns out to be
  absl::Duration timeout = absl::Seconds(5);  // of one call, and of a connection that owes an answer
};

// [redis|rediss][+cluster]://[[user]:password@]host[:port][,host[:port]…][/database]. rediss is TLS. Several hosts, or
// +cluster, say that it is a cluster. User and password may be percent-encoded, an IPv6 address stands in brackets. The
// error says what is wrong with it and never quotes it, since it may hold the password.
absl::StatusOr<Address> ParseUrl(const std::string& url);

// For --help.
inline constexpr char kUrlHelp[] =
    "redis://[[user]:password@]host[:port][/db]; rediss:// is TLS; a cluster: any of its nodes, "
    "redis://host:port,host:port or redis+cluster://host:port";

}  // namespace poststelle::redis
