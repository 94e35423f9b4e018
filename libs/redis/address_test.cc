#include "libs/redis/address.h"

#include <gtest/gtest.h>

namespace poststelle::redis {
namespace {

TEST(AddressTest, OneServer) {
  const Address plain = ParseUrl("redis://cache").value();
  EXPECT_EQ(plain.nodes, (std::vector<Endpoint>{{"cache", 6379}}));
  EXPECT_TRUE(plain.user.empty() && plain.password.empty());
  EXPECT_FALSE(plain.tls || plain.cluster);
  const Address full = ParseUrl("rediss://worker:p%40ss:w%2Fo@cache:7000/3").value();
  EXPECT_EQ(full.nodes, (std::vector<Endpoint>{{"cache", 7000}}));
  EXPECT_EQ(full.user, "worker");
  EXPECT_EQ(full.password.Reveal(), "p@ss:w/o");
  EXPECT_EQ(full.database, 3);
  EXPECT_TRUE(full.tls);
}

TEST(AddressTest, ThePasswordAloneAndAsItIs) {
  const Address address = ParseUrl("redis://:a@b%zz@h").value();
  EXPECT_TRUE(address.user.empty());
  EXPECT_EQ(address.password.Reveal(), "a@b%zz");
  EXPECT_EQ(address.nodes[0].host, "h");
}

TEST(AddressTest, SeveralHostsAreACluster) {
  const Address address = ParseUrl("redis://a:1,b,[::1]:3").value();
  EXPECT_EQ(address.nodes, (std::vector<Endpoint>{{"a", 1}, {"b", 6379}, {"::1", 3}}));
  EXPECT_TRUE(address.cluster);
  EXPECT_EQ(address.nodes[2].ToString(), "[::1]:3");
  EXPECT_TRUE(ParseUrl("rediss+cluster://a").value().cluster);
}

TEST(AddressTest, WhatIsWrongIsSaidWithoutThePassword) {
  for (const char* url : {"", "cache:6379", "http://:geheim@h", "redis://", "redis://:geheim@", "redis://geheim@h",
                          "redis://:geheim@h:x", "redis://:geheim@h:70000", "redis://:geheim@h:", "redis://:geheim@h/x",
                          "redis://:geheim@h/-1", "redis://user:@h", "redis://:geheim@a,b/1", "redis://:geheim@[::1",
                          "redis://:geheim@[::1]6379", "redis://:geheim@a,,b"}) {
    const auto address = ParseUrl(url);
    EXPECT_EQ(address.status().code(), absl::StatusCode::kInvalidArgument) << url;
    EXPECT_EQ(std::string(address.status().message()).find("geheim"), std::string::npos) << address.status();
  }
}

}  // namespace
}  // namespace poststelle::redis
