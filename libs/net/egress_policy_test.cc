#include "libs/net/egress_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace poststelle::net {
namespace {

bool Allows(const EgressPolicy& policy, const std::string& address, uint16_t port = 993) {
  return policy.Allows(asio::ip::make_address(address), port);
}

EgressPolicy Allowing(std::initializer_list<const char*> networks) {
  EgressPolicy policy;
  for (const char* network : networks) EXPECT_TRUE(policy.Allow(network).ok()) << network;
  return policy;
}

// That everything else is forbidden: dialer_test.cc.
TEST(EgressPolicy, PublicAddressesAreAllowedByDefault) {
  for (const char* address :
       {"1.1.1.1",         "8.8.8.8",         "9.255.255.255",    "11.0.0.0",        "100.63.255.255",
        "100.128.0.0",     "126.255.255.255", "128.0.0.0",        "168.63.129.15",   "169.253.255.255",
        "169.255.0.0",     "172.15.255.255",  "172.32.0.0",       "191.255.255.255", "192.0.1.0",
        "192.0.3.0",       "192.167.255.255", "192.169.0.0",      "198.17.255.255",  "198.20.0.0",
        "198.51.101.0",    "203.0.112.255",   "223.255.255.255",  "2000::1",         "2001:200::1",
        "2001:4860::8888", "2001:db7::1",     "2003::1",          "2606:4700::1111", "2620:4f:8001::1",
        "2a00:1450::1",    "3fff:1000::1",    "64:ff9b::8.8.8.8", "::ffff:8.8.8.8",  "2a00::5efe:8.8.8.8"}) {
    EXPECT_TRUE(Allows(EgressPolicy(), address)) << address;
  }
}

TEST(EgressPolicy, ANetworkThatIsAllowedEndsWhereItEnds) {
  const EgressPolicy policy = Allowing({"10.20.0.0/15", "192.168.1.7", "fd12:3450::/29"});
  for (const char* in :
       {"10.20.0.0", "10.21.255.255", "::ffff:10.21.0.1", "192.168.1.7", "fd12:3450::", "fd12:3457:ffff::"}) {
    EXPECT_TRUE(Allows(policy, in)) << in;
  }
  for (const char* out :
       {"10.19.255.255", "10.22.0.0", "192.168.1.6", "192.168.1.8", "fd12:344f:ffff::", "fd12:3458::"}) {
    EXPECT_FALSE(Allows(policy, out)) << out;
  }
}

TEST(EgressPolicy, ANetworkMayBeAllowedForSomePorts) {
  const EgressPolicy policy = Allowing({"127.0.0.1:993", "10.0.0.0/8:143-144", "[::1]:993", "[fd00::/8]:1-65535"});
  EXPECT_TRUE(Allows(policy, "127.0.0.1", 993));
  EXPECT_FALSE(Allows(policy, "127.0.0.1", 6379));
  EXPECT_FALSE(Allows(policy, "10.0.0.1", 142));
  EXPECT_TRUE(Allows(policy, "10.0.0.1", 143));
  EXPECT_TRUE(Allows(policy, "10.0.0.1", 144));
  EXPECT_FALSE(Allows(policy, "10.0.0.1", 145));
  EXPECT_TRUE(Allows(policy, "::1", 993));
  EXPECT_FALSE(Allows(policy, "::1", 994));
  EXPECT_TRUE(Allows(policy, "fd00::1", 65535));
}

TEST(EgressPolicy, WhatIsDeniedIsNotAllowed) {
  EgressPolicy policy = Allowing({"10.0.0.0/8"});
  for (const char* network : {"10.96.0.0/12", "8.8.8.0/24", "2a00::/16", "1.1.1.1:25"}) {
    ASSERT_TRUE(policy.Deny(network).ok()) << network;
  }
  for (const char* denied : {"10.96.0.1", "8.8.8.8", "64:ff9b::8.8.8.8", "2a00:1450::1"}) {
    EXPECT_FALSE(Allows(policy, denied)) << denied;
  }
  for (const char* allowed : {"10.95.0.1", "8.8.4.4", "2a01::1"}) EXPECT_TRUE(Allows(policy, allowed)) << allowed;
  EXPECT_FALSE(Allows(policy, "1.1.1.1", 25));
  EXPECT_TRUE(Allows(policy, "1.1.1.1", 26));
}

TEST(EgressPolicy, AnIpv4AddressWithinAnIpv6OneIsJudgedToo) {
  const EgressPolicy all_ipv6 = Allowing({"::/0"});
  for (const char* address :
       {"10.0.0.1", "::ffff:10.0.0.1", "::10.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b::10.0.0.1",
        "2002:a00:1::", "64:ff9b:1::10.0.0.1", "64:ff9b:1:a00:0:100::", "64:ff9b:1:70a:0:1::", "64:ff9b:1:7:a:0:100:0",
        "2001:0:a00:1::f7f7:f7f7", "2001:0:808:808::f5ff:fffe", "2a00::5efe:10.0.0.1", "fd00::200:5efe:10.0.0.1"}) {
    EXPECT_FALSE(Allows(all_ipv6, address)) << address;
    EXPECT_TRUE(Allows(Allowing({"::/0", "10.0.0.0/8"}), address)) << address;
  }
  for (const char* address : {"::1", "::", "fd00::1", "::8.8.8.8", "64:ff9b:1::8.8.8.8",
                              "64:ff9b:1:808:8:800::", "64:ff9b:1:708:8:808::", "64:ff9b:1:7:8:808:800:0",
                              "2002:808:808::", "2001:0:808:808::f7f7:f7f7"}) {
    EXPECT_TRUE(Allows(all_ipv6, address)) << address;
    EXPECT_FALSE(Allows(EgressPolicy(), address)) << address;
  }
  EXPECT_TRUE(Allows(EgressPolicy::Unrestricted(), "64:ff9b::10.0.0.1"));
}

TEST(EgressPolicy, AMistakeIsNamedWithItsRemedy) {
  const std::string how = "Give it like 10.0.0.0/8, 192.168.1.7, fd00::/8, 10.0.0.5:993 or [fd00::/8]:143-993.";
  const std::pair<std::string, std::string> cases[] = {
      {"", "must begin with an IP address"},
      {"localhost", "names are not looked up here. " + how},
      {"10.0.0.0/33", "must be 0 to 32. " + how},
      {"fd00::/129", "must be 0 to 128"},
      {"10.0.0.0/-1", "must be 0 to 32"},
      {"10.0.0.0/", "must be 0 to 32"},
      {"10.0.0.0/255.0.0.0", "must be 0 to 32"},
      {"10.0.0.0/8/8", "must be 0 to 32"},
      {"10.0.0/24", "must begin with an IP address"},
      {"010.0.0.0/8", "must begin with an IP address"},
      {"fe80::1%lo", "must begin with an IP address"},
      {"10.1.2.3/8", "Write 10.0.0.0/8 for the network, or 10.1.2.3 for the one address."},
      {"fd00::1/8", "Write fd00::/8 for the network, or fd00::1 for the one address."},
      {"10.0.0.0/8:0", "ports are 1 to 65535"},
      {"10.0.0.0/8:65536", "ports are 1 to 65535"},
      {"10.0.0.0/8:99-98", "ports are 1 to 65535"},
      {"10.0.0.0/8:imap", "ports are 1 to 65535"},
      {"10.0.0.0/8:", "ports are 1 to 65535"},
      {"10.0.0.0/8:1-2-3", "ports are 1 to 65535"},
      {"[::1", "ports are 1 to 65535"},
      {"[", "ports are 1 to 65535"},
      {"[]", "must begin with an IP address"},
      {"[::1]:", "ports are 1 to 65535"},
      {"[::1]993", "ports are 1 to 65535"},
      {"::1]:993", "must begin with an IP address"},
  };
  for (const auto& [entry, words] : cases) {
    EgressPolicy policy;
    for (const absl::Status& status : {policy.Allow(entry), policy.Deny(entry)}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << entry;
      EXPECT_THAT(std::string(status.message()), ::testing::StartsWith("\"" + entry + "\" is no network: "));
      EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(words));
    }
  }
}

}  // namespace
}  // namespace poststelle::net
