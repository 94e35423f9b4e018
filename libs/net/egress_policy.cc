#include "libs/net/egress_policy.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "libs/base/status_macros.h"
#include "libs/base/sv.h"

namespace poststelle::net {
namespace {

using Bytes = EgressPolicy::Bytes;
using Network = EgressPolicy::Network;

// What is handed out for use on the internet. NAT64's prefix is a way to IPv4 addresses, which are judged as well.
constexpr const char* kGlobal[] = {"0.0.0.0/0", "2000::/3", "64:ff9b::/96"};

// What of it is no host on the internet: IANA's registries of special-purpose addresses (IPv4 and IPv6, as of 2026-11;
// what they have outside of kGlobal needs no line), multicast, and one address that a cloud put among the public ones.
constexpr const char* kSpecial[] = {
    "0.0.0.0/8",          // this network
    "10.0.0.0/8",         // private
    "100.64.0.0/10",      // carrier-grade NAT; a cloud's metadata
    "127.0.0.0/8",        // loopback
    "168.63.129.16/32",   // Azure's platform, for virtual machines only
    "169.254.0.0/16",     // link-local; the clouds' metadata
    "172.16.0.0/12",      // private
    "192.0.0.0/24",       // protocol assignments
    "192.0.2.0/24",       // documentation
    "192.31.196.0/24",    // AS112
    "192.52.193.0/24",    // AMT
    "192.88.99.0/24",     // 6to4 relays
    "192.168.0.0/16",     // private
    "192.175.48.0/24",    // AS112
    "198.18.0.0/15",      // benchmarking
    "198.51.100.0/24",    // documentation
    "203.0.113.0/24",     // documentation
    "224.0.0.0/4",        // multicast
    "240.0.0.0/4",        // reserved, broadcast
    "2001::/23",          // protocol assignments: Teredo, benchmarking, ORCHID and more
    "2001:db8::/32",      // documentation
    "2002::/16",          // 6to4
    "2620:4f:8000::/48",  // AS112
    "3fff::/20",          // documentation
};

constexpr char kHowTo[] = "Give it like 10.0.0.0/8, 192.168.1.7, fd00::/8, 10.0.0.5:993 or [fd00::/8]:143-993.";

Bytes ToBytes(const asio::ip::address& address) {
  return (address.is_v6() ? address.to_v6() : asio::ip::make_address_v6(asio::ip::v4_mapped, address.to_v4()))
      .to_bytes();
}

// Whether the first `bits` of both are the same.
bool SamePrefix(const Bytes& a, const Bytes& b, int bits) {
  const int whole = bits / 8;
  if (!std::equal(a.begin(), a.begin() + whole, b.begin())) return false;
  return bits % 8 == 0 || ((a[whole] ^ b[whole]) >> (8 - bits % 8)) == 0;
}

bool StartsWith(const Bytes& bytes, const char* address, int bits) {
  return SamePrefix(bytes, asio::ip::make_address_v6(address).to_bytes(), bits);
}

bool IsIpv4(const Bytes& bytes) { return asio::ip::address_v6(bytes).is_v4_mapped(); }

bool Contains(const std::vector<Network>& networks, const Bytes& bytes, uint16_t port) {
  return std::any_of(networks.begin(), networks.end(), [&](const Network& network) {
    // An IPv6 network is none of IPv4 addresses, though ::/0 holds the mapped ones.
    return IsIpv4(network.base) == IsIpv4(bytes) && SamePrefix(network.base, bytes, network.bits) &&
           network.first_port <= port && port <= network.last_port;
  });
}

Bytes Ipv4At(const Bytes& bytes, size_t at, uint8_t flipped = 0) {
  asio::ip::address_v4::bytes_type out;
  for (size_t i = 0; i < 4; ++i) out[i] = bytes[at + i] ^ flipped;
  return ToBytes(asio::ip::address_v4(out));
}

// RFC 6052 §2.2: behind a prefix of 48, 56 or 64 bits the address leaves out octet 8 and zeros follow it; otherwise it
// is at the end.
Bytes LocalNat64(const Bytes& bytes) {
  Bytes without_octet_8 = bytes;
  std::copy(bytes.begin() + 9, bytes.end(), without_octet_8.begin() + 8);
  for (size_t at : {6, 7, 8}) {
    const auto is_zero = [](uint8_t byte) { return byte == 0; };
    if (std::all_of(without_octet_8.begin() + at + 4, without_octet_8.end(), is_zero)) {
      return Ipv4At(without_octet_8, at);
    }
  }
  return Ipv4At(bytes, 12);
}

// The IPv4 addresses that packets to `bytes` may end up at.
std::vector<Bytes> Embedded(const Bytes& bytes) {
  if (IsIpv4(bytes) || StartsWith(bytes, "::", 127)) return {};  // :: and ::1 carry none
  const bool compatible = StartsWith(bytes, "::", 96);
  const bool translated = StartsWith(bytes, "::ffff:0:0:0", 96);
  const bool nat64 = StartsWith(bytes, "64:ff9b::", 96);
  const bool isatap = (bytes[8] & 0xfc) == 0 && bytes[9] == 0 && bytes[10] == 0x5e && bytes[11] == 0xfe;
  std::vector<Bytes> out;
  if (compatible || translated || nat64 || isatap) out.push_back(Ipv4At(bytes, 12));
  if (StartsWith(bytes, "64:ff9b:1::", 48)) out.push_back(LocalNat64(bytes));
  if (StartsWith(bytes, "2002::", 16)) out.push_back(Ipv4At(bytes, 2));
  if (StartsWith(bytes, "2001::", 32)) {  // Teredo: the server, and the client with all bits turned over
    out.push_back(Ipv4At(bytes, 4));
    out.push_back(Ipv4At(bytes, 12, 0xff));
  }
  return out;
}

// Takes ":PORT" or ":FIRST-LAST" off the end of `text`, and the brackets with it. False if they make no sense.
bool TakePorts(absl::string_view& text, Network& network) {
  const size_t colon = text.rfind(':');
  const bool bracketed = !text.empty() && text.front() == '[';
  if (bracketed && text.back() == ']') {
    text = text.substr(1, text.size() - 2);
    return true;
  }
  if (colon == text.npos || (!bracketed && text.find(':') != colon)) return !bracketed;  // IPv6 has more than one
  const absl::string_view ports = text.substr(colon + 1);
  const size_t dash = ports.find('-');
  int first = 0;
  int last = 0;
  if (!absl::SimpleAtoi(ports.substr(0, dash), &first)) return false;
  if (!absl::SimpleAtoi(dash == ports.npos ? ports : ports.substr(dash + 1), &last)) return false;
  if (first < 1 || first > last || last > UINT16_MAX) return false;
  network.first_port = static_cast<uint16_t>(first);
  network.last_port = static_cast<uint16_t>(last);
  text = text.substr(0, colon);
  if (!bracketed) return true;
  if (text.back() != ']') return false;
  text = text.substr(1, text.size() - 2);
  return true;
}

absl::StatusOr<Network> ParseNetwork(std::string_view entry) {
  const auto wrong = [entry](const std::string& why) {
    return absl::InvalidArgumentError(absl::StrCat("\"", Av(entry), "\" is no network: ", why));
  };
  absl::string_view text = absl::StripAsciiWhitespace(Av(entry));
  Network network;
  if (!TakePorts(text, network)) return wrong(absl::StrCat("ports are 1 to 65535. ", kHowTo));
  const size_t slash = text.find('/');
  asio::error_code error;
  const std::string name(text.substr(0, slash));
  const asio::ip::address address = asio::ip::make_address(name, error);
  if (error || name.find('%') != name.npos) {
    return wrong(absl::StrCat("it must begin with an IP address; names are not looked up here. ", kHowTo));
  }
  const int most = address.is_v4() ? 32 : 128;
  int length = most;
  if (slash != text.npos && (!absl::SimpleAtoi(text.substr(slash + 1), &length) || length < 0 || length > most)) {
    return wrong(absl::StrCat("the length behind / must be 0 to ", most, ". ", kHowTo));
  }
  network.base = ToBytes(address);
  network.bits = length + 128 - most;
  Bytes masked{};
  for (int bit = 0; bit < network.bits; ++bit) masked[bit / 8] |= network.base[bit / 8] & (0x80 >> bit % 8);
  if (masked != network.base) {
    const asio::ip::address_v6 mended(masked);
    const std::string base =
        address.is_v4() ? asio::ip::make_address_v4(asio::ip::v4_mapped, mended).to_string() : mended.to_string();
    return wrong(absl::StrCat("bits behind the length are set. Write ", base, "/", length, " for the network, or ",
                              name, " for the one address."));
  }
  return network;
}

absl::Status Add(std::string_view entry, std::vector<Network>& networks) {
  PS_ASSIGN_OR_RETURN(Network network, ParseNetwork(entry));
  networks.push_back(network);
  return absl::OkStatus();
}

// `entries` are constants of this file.
template <size_t N>
std::vector<Network> Table(const char* const (&entries)[N]) {
  std::vector<Network> out;
  for (const char* entry : entries) {
    if (!Add(entry, out).ok()) std::abort();
  }
  return out;
}

bool IsPublic(const Bytes& bytes) {
  static const std::vector<Network>& global = *new std::vector<Network>(Table(kGlobal));
  static const std::vector<Network>& special = *new std::vector<Network>(Table(kSpecial));
  return Contains(global, bytes, 0) && !Contains(special, bytes, 0);
}

}  // namespace

EgressPolicy EgressPolicy::Unrestricted() {
  EgressPolicy policy;
  policy.allow_ = Table({"0.0.0.0/0", "::/0"});
  return policy;
}

absl::Status EgressPolicy::Allow(std::string_view network) { return Add(network, allow_); }

absl::Status EgressPolicy::Deny(std::string_view network) { return Add(network, deny_); }

bool EgressPolicy::Allows(const asio::ip::address& address, uint16_t port) const {
  std::vector<Bytes> judged{ToBytes(address)};
  for (const Bytes& embedded : Embedded(judged.front())) judged.push_back(embedded);
  return std::all_of(judged.begin(), judged.end(), [&](const Bytes& bytes) {
    return !Contains(deny_, bytes, port) && (Contains(allow_, bytes, port) || IsPublic(bytes));
  });
}

}  // namespace poststelle::net
