// The cluster's client: redirections against scripted servers; a real cluster of six, whose master is killed and whose
// slot moves under load.
#include "libs/redis/cluster_client.h"

#include <gtest/gtest.h>

#include <atomic>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "libs/testing/await.h"
#include "libs/testing/redis_server.h"
#include "libs/testing/scripted_server.h"
#include "libs/testing/socket.h"

namespace poststelle::redis {
namespace {

using testing::Eventually;
using testing::RedisCluster;
using testing::RedisServer;
using testing::ScriptedServer;
using Scripted = testing::ScriptedServer::Connection;

class ClusterClientTest : public ::testing::Test {
 protected:
  std::unique_ptr<ClusterClient> Connect(const std::string& url, absl::Duration timeout = absl::Seconds(20)) {
    Address address = ParseUrl(url).value();
    address.timeout = timeout;
    return std::make_unique<ClusterClient>(runtime_.executor(), *dialer_, address, [this](bool up) { up_ = up; });
  }
  absl::StatusOr<Reply> Run(Commands& redis, std::vector<std::string> command) {
    return testing::Await(runtime_, redis.Command(std::move(command)));
  }
  async::Runtime runtime_{2};
  std::unique_ptr<net::Dialer> dialer_ =
      net::MakeTcpDialer(net::MakeResolver(runtime_.executor()), net::EgressPolicy::Unrestricted());
  std::atomic<bool> up_{false};
};

// ---- Scripted

std::string Bulk(const std::string& text) { return absl::StrCat("$", text.size(), "\r\n", text, "\r\n"); }

std::string AllSlotsAt(uint16_t port) {
  return absl::StrCat("*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n", Bulk("127.0.0.1"), ":", port, "\r\n", Bulk("id"));
}

// A node: says that `slots_at` has all slots, and gives everything else to `answer`.
ScriptedServer FakeNode(std::atomic<uint16_t>& slots_at, std::function<std::string(std::vector<std::string>)> answer) {
  return ScriptedServer([&slots_at, answer = std::move(answer)](Scripted& c) {
    while (true) {
      std::vector<std::string> command = c.ReadCommand();
      if (command.empty()) return;
      if (command[0] == "PING") {
        c.Write("+PONG\r\n");
      } else if (command[0] == "CLUSTER") {
        c.Write(AllSlotsAt(slots_at));
      } else {
        c.Write(answer(std::move(command)));
      }
    }
  });
}

class RedirectTest : public ClusterClientTest {
 protected:
  std::string FirstUrl() const { return absl::StrCat("redis+cluster://127.0.0.1:", first_.port()); }
  std::atomic<uint16_t> slots_at_{0};
  std::atomic<int> asked_first_{0};
  std::function<std::string(uint16_t)> first_answers_;
  std::string seen_by_second_;  // read after the answer
  ScriptedServer second_ = FakeNode(slots_at_, [this](std::vector<std::string> command) -> std::string {
    absl::StrAppend(&seen_by_second_, absl::StrJoin(command, " "), ";");
    return command[0] == "ASKING" ? "+OK\r\n" : ":2\r\n";
  });
  ScriptedServer first_ = FakeNode(slots_at_, [this](std::vector<std::string>) {
    ++asked_first_;
    return first_answers_(second_.port());
  });
};

TEST_F(RedirectTest, MovedIsFollowedAndRemembered) {
  slots_at_ = first_.port();
  first_answers_ = [this](uint16_t second) {
    slots_at_ = second;
    return absl::StrCat("-MOVED ", SlotOf(std::string_view("k")), " 127.0.0.1:", second, "\r\n");
  };
  auto client = Connect(FirstUrl());
  EXPECT_EQ(Run(*client, {"GET", "k"}).value().integer, 2);
  EXPECT_EQ(Run(*client, {"GET", "k"}).value().integer, 2);
  EXPECT_EQ(asked_first_, 1);
  EXPECT_EQ(seen_by_second_, "GET k;GET k;");
}

TEST_F(RedirectTest, AskGoesThereOnceWithAsking) {
  slots_at_ = first_.port();
  first_answers_ = [](uint16_t second) {
    return absl::StrCat("-ASK ", SlotOf(std::string_view("k")), " 127.0.0.1:", second, "\r\n");
  };
  auto client = Connect(FirstUrl());
  EXPECT_EQ(Run(*client, {"GET", "k"}).value().integer, 2);
  EXPECT_EQ(Run(*client, {"GET", "k"}).value().integer, 2);
  EXPECT_EQ(asked_first_, 2);
  EXPECT_EQ(seen_by_second_, "ASKING;GET k;ASKING;GET k;");
}

TEST_F(RedirectTest, RedirectionInACircleEnds) {
  slots_at_ = first_.port();
  first_answers_ = [this](uint16_t) { return absl::StrCat("-MOVED 1 127.0.0.1:", first_.port(), "\r\n"); };
  auto client = Connect(FirstUrl());
  EXPECT_TRUE(absl::IsUnavailable(Run(*client, {"GET", "k"}).status()));
  EXPECT_EQ(asked_first_, ClusterClient::kMaxRedirects + 1);
}

TEST_F(RedirectTest, WhatPassesIsTriedAgainAndNotForEver) {
  slots_at_ = first_.port();
  first_answers_ = [this](uint16_t) -> std::string {
    return asked_first_ == 1 ? "-TRYAGAIN Multiple keys\r\n" : asked_first_ == 2 ? "-CLUSTERDOWN down\r\n" : ":1\r\n";
  };
  auto client = Connect(FirstUrl());
  EXPECT_EQ(Run(*client, {"GET", "k"}).value().integer, 1);
  first_answers_ = [](uint16_t) -> std::string { return "-CLUSTERDOWN The cluster is down\r\n"; };
  asked_first_ = 0;
  EXPECT_TRUE(absl::IsUnavailable(Run(*client, {"GET", "k"}).status()));
  EXPECT_EQ(asked_first_, ClusterClient::kMaxRetries + 1);
}

// ---- One real server

TEST_F(ClusterClientTest, AServerThatIsNoClusterServesEverything) {
  RedisServer server;
  auto client = Connect(server.url());
  EXPECT_TRUE(Run(*client, {"SET", "k", "v"}).ok());
  EXPECT_TRUE(Run(*client, {"PING"}).ok());
  EXPECT_TRUE(Eventually([&] { return up_ && client->connected(); }));
  server.Kill();
  EXPECT_TRUE(Eventually([&] { return !up_; }));
  EXPECT_TRUE(absl::IsUnavailable(Run(*client, {"GET", "k"}).status()));
  server.Start();
  EXPECT_TRUE(Eventually([&] { return up_.load(); }));
  EXPECT_TRUE(Run(*client, {"GET", "k"}).ok());
  auto strict = Connect(absl::StrCat("redis+cluster://127.0.0.1:", server.port()));
  EXPECT_TRUE(absl::IsFailedPrecondition(Run(*strict, {"GET", "k"}).status()));
}

TEST_F(ClusterClientTest, WithoutAnyServerItIsUnavailable) {
  auto client = Connect(absl::StrCat("redis://127.0.0.1:", testing::FreePort()));
  const absl::Status status = Run(*client, {"GET", "k"}).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_FALSE(client->connected());
}

// ---- A real cluster: made once, since that takes seconds. Each test leaves it whole.

class RealClusterTest : public ClusterClientTest {
 protected:
  static void SetUpTestSuite() { cluster_ = new RedisCluster; }
  static void TearDownTestSuite() {
    delete cluster_;
    cluster_ = nullptr;
  }
  struct Load {
    std::atomic<bool> end{false};
    std::atomic<int> good{0};
    std::atomic<int> wrong{0};  // failed with anything but kUnavailable, or wrong answers
    std::atomic<int> unavailable{0};
  };
  // Counts its own key up, over and over.
  static async::Task<void> Count(Commands& redis, std::string key, Load& load) {
    while (!load.end) {
      std::vector<std::string> keys{key, key + ":twin"};
      std::vector<std::string> arguments{"1"};
      const auto reply = co_await redis.Eval(kCount, std::move(keys), std::move(arguments));
      if (reply.ok()) {
        ++load.good;
      } else {
        ++(absl::IsUnavailable(reply.status()) ? load.unavailable : load.wrong);
        if (!absl::IsUnavailable(reply.status())) {
          ADD_FAILURE() << reply.status();
          co_return;
        }
      }
    }
  }
  // A key whose slot another master than `node` serves.
  static std::string KeyElsewhere(RedisServer& node) {
    int i = 0;
    while (cluster_->MasterOf(absl::StrCat("{e", i, "}")).port() == node.port()) ++i;
    return absl::StrCat("{e", i, "}:count");
  }
  static inline const std::string kCount =
      "redis.call('INCRBY', KEYS[2], ARGV[1]) return redis.call('INCRBY', KEYS[1], ARGV[1])";
  static inline RedisCluster* cluster_ = nullptr;
};

TEST_F(RealClusterTest, OneNodeLeadsToAllOthersAndEachSlotToItsMaster) {
  auto client = Connect(cluster_->node(0).url());  // the URL does not say that it is a cluster
  for (int i = 0; i < 16; ++i) {
    const std::string key = absl::StrCat("{s", i, "}:k");
    ASSERT_TRUE(Run(*client, {"SET", key, "v"}).ok());
    EXPECT_EQ(cluster_->MasterOf(key).Cli(absl::StrCat("get '", key, "'")), "v\n");
  }
  EXPECT_TRUE(Eventually([&] { return up_ && client->connected(); }));
}

TEST_F(RealClusterTest, ASlotMovesUnderLoad) {
  auto client = Connect(cluster_->url());
  const std::string key = "{moving}:k";
  RedisServer& from = cluster_->MasterOf(key);
  RedisServer& to = cluster_->MasterOf(KeyElsewhere(from));
  ASSERT_NE(from.port(), to.port());
  ASSERT_TRUE(Run(*client, {"SET", key, "0"}).ok());
  ASSERT_TRUE(Run(*client, {"SET", key + ":twin", "0"}).ok());
  Load load;
  async::TaskScope scope(runtime_.executor());
  for (int i = 0; i < 4; ++i) scope.Spawn(Count(*client, key, load));
  const std::string slot = absl::StrCat(SlotOf(std::string_view(key)));
  const auto id = [](RedisServer& node) { return node.Cli("cluster myid | tr -d '\\n'"); };
  to.Cli(absl::StrCat("cluster setslot ", slot, " importing ", id(from)));
  from.Cli(absl::StrCat("cluster setslot ", slot, " migrating ", id(to)));
  // One key after the other: between them lies TRYAGAIN, after them ASK, after setslot MOVED.
  for (const std::string& moved : {key, key + ":twin"}) {
    EXPECT_EQ(from.Cli(absl::StrCat("migrate 127.0.0.1 ", to.port(), " '", moved, "' 0 5000")), "OK\n");
  }
  const int before = load.good;
  EXPECT_TRUE(Eventually([&] { return load.good > before + 20; })) << "with ASK";
  for (RedisServer* node : {&to, &from}) node->Cli(absl::StrCat("cluster setslot ", slot, " node ", id(to)));
  const int after = load.good;
  EXPECT_TRUE(Eventually([&] { return load.good > after + 20; })) << "with MOVED";
  load.end = true;
  scope.JoinBlocking();
  EXPECT_EQ(load.wrong, 0);
  const auto count = Run(*client, {"GET", key});
  ASSERT_TRUE(count.ok()) << count.status();
  EXPECT_GE(std::stoi(count->string), load.good.load());
  EXPECT_LE(std::stoi(count->string), load.good + load.unavailable);
}

TEST_F(RealClusterTest, AMasterDiesUnderLoadAndItsReplicaTakesOver) {
  auto client = Connect(cluster_->url());
  Load of_dead, of_others;
  const std::string key = "{failover}:k";
  RedisServer& dead = cluster_->MasterOf(key);
  const std::string other = KeyElsewhere(dead);
  async::TaskScope scope(runtime_.executor());
  scope.Spawn(Count(*client, key, of_dead));
  scope.Spawn(Count(*client, other, of_others));
  EXPECT_TRUE(Eventually([&] { return of_dead.good > 20 && of_others.good > 20; }));
  dead.Kill();
  EXPECT_TRUE(Eventually([&] { return !up_; }));
  const int before = of_dead.good;
  EXPECT_TRUE(Eventually([&] { return of_dead.good > before + 20; })) << "its replica did not take over";
  const int others = of_others.good;
  EXPECT_TRUE(Eventually([&] { return of_others.good > others + 20; }));
  EXPECT_TRUE(Eventually([&] { return up_ && client->connected(); }));
  dead.Start();  // as a replica of its former one
  of_dead.end = true;
  of_others.end = true;
  scope.JoinBlocking();
  EXPECT_EQ(of_dead.wrong + of_others.wrong, 0);
  EXPECT_GT(of_dead.unavailable, 0);
}

TEST_F(RealClusterTest, AFrozenNodeDoesNotHoldUpTheOthers) {
  auto client = Connect(cluster_->url(), absl::Seconds(1));
  const std::string frozen_key = "{frozen}:k";
  RedisServer& frozen = cluster_->MasterOf(frozen_key);
  const std::string other = KeyElsewhere(frozen);
  ASSERT_TRUE(Run(*client, {"GET", frozen_key}).ok());
  frozen.Pause();
  // While one waits for the frozen node, another is answered at once; then the replica takes over.
  EXPECT_TRUE(Eventually([&] { return Run(*client, {"GET", other}).ok(); }));
  EXPECT_TRUE(Eventually([&] { return Run(*client, {"SET", frozen_key, "v"}).ok(); }));
  frozen.Resume();
}

}  // namespace
}  // namespace poststelle::redis
