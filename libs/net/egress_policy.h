// Which addresses may be connected to where a caller chooses the target (a mail server, later a webhook). Without it
// whoever may create a mailbox could reach into the networks that this process stands in.
#pragma once

#include <asio/ip/address.hpp>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace poststelle::net {

// Public unicast addresses, unless told otherwise. An IPv6 address that carries an IPv4 one (NAT64, 6to4, Teredo,
// ISATAP, IPv4-compatible and -translated) is allowed only if both are; an IPv4-mapped one is the IPv4 address.
// A value; reading it is thread-safe.
//
// A network is ADDRESS or ADDRESS/LENGTH, with ports :PORT or :FIRST-LAST behind it if it is not for all of them; IPv6
// then in brackets: 10.0.0.0/8, 192.168.1.7:993, fd00::/8, [fd00::/8]:143-993.
class EgressPolicy {
 public:
  // Every address: for servers that the operator of this installation names, such as its Redis.
  static EgressPolicy Unrestricted();

  // Adds a network that is allowed though it is not public. InvalidArgument names the entry and how to mend it.
  absl::Status Allow(std::string_view network);
  // Adds a network that is never allowed, whatever Allow() says. Errors as there.
  absl::Status Deny(std::string_view network);

  // For the very address that is connected to: whatever it was looked up from may have changed its mind.
  bool Allows(const asio::ip::address& address, uint16_t port) const;

  // IPv4 addresses as IPv4-mapped ones.
  using Bytes = asio::ip::address_v6::bytes_type;
  struct Network {
    Bytes base{};
    int bits = 0;  // of `base`, from the front
    uint16_t first_port = 0;
    uint16_t last_port = UINT16_MAX;
  };

 private:
  std::vector<Network> allow_;
  std::vector<Network> deny_;
};

}  // namespace poststelle::net
