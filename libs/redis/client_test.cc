// The client of one server: against a scripted server for every fault that can be put into bytes, against a real one
// for those that are states of Redis.
#include "libs/redis/client.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <future>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "libs/base/ids.h"
#include "libs/testing/await.h"
#include "libs/testing/redis_server.h"
#include "libs/testing/scripted_server.h"
#include "libs/testing/socket.h"

namespace poststelle::redis {
namespace {

using testing::Eventually;
using testing::RedisServer;
using testing::ScriptedServer;
using Scripted = testing::ScriptedServer::Connection;

class ClientTest : public ::testing::Test {
 protected:
  std::unique_ptr<Client> Connect(const std::string& url, absl::Duration timeout = absl::Seconds(20)) {
    Address address = ParseUrl(url).value();
    address.timeout = timeout;
    return std::make_unique<Client>(runtime_.executor(), *dialer_, address, [this](bool up) {
      ++changes_;
      up_ = up;
    });
  }
  std::unique_ptr<Client> Connect(const ScriptedServer& server, absl::Duration timeout = absl::Seconds(20)) {
    return Connect(absl::StrCat("redis://127.0.0.1:", server.port()), timeout);
  }
  absl::StatusOr<Reply> Run(Commands& redis, std::vector<std::string> command) {
    return testing::Await(runtime_, redis.Command(std::move(command)));
  }
  absl::StatusOr<Reply> Eval(Commands& redis, const std::string& script) {
    return testing::Await(runtime_, redis.Eval(script, {"k"}, {"v"}));
  }

  async::Runtime runtime_{2};
  std::unique_ptr<net::Dialer> dialer_ =
      net::MakeTcpDialer(net::MakeResolver(runtime_.executor()), net::EgressPolicy::Unrestricted());
  std::atomic<int> changes_{0};
  std::atomic<bool> up_{false};
};

// ---- Bytes

// The first connection misbehaves with the first command after the greeting; every later one answers it with :7.
ScriptedServer MisbehavesOnce(std::function<void(Scripted&)> misbehave) {
  return ScriptedServer([misbehave = std::move(misbehave)](Scripted& c) {
    c.ReadCommand();  // PING
    c.Write("+PONG\r\n");
    while (!c.ReadCommand().empty()) {
      if (c.number() == 0) {
        misbehave(c);
        return;
      }
      c.Write(":7\r\n");
    }
  });
}

struct Misbehaviour {
  const char* name;
  std::function<void(Scripted&)> act;
};

class MisbehavingTest : public ClientTest, public ::testing::WithParamInterface<Misbehaviour> {};

TEST_P(MisbehavingTest, IsUnavailableInTimeAndRecoversWithTheServer) {
  ScriptedServer server = MisbehavesOnce(GetParam().act);
  auto client = Connect(server, absl::Seconds(1));
  const absl::Time start = absl::Now();
  const absl::Status status = Run(*client, {"GET", "k"}).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_LT(absl::Now() - start, absl::Seconds(15));
  EXPECT_TRUE(Eventually([&] {
    const auto reply = Run(*client, {"GET", "k"});
    return reply.ok() && reply->integer == 7;
  }));
}

INSTANTIATE_TEST_SUITE_P(
    Faults, MisbehavingTest,
    ::testing::Values(Misbehaviour{"Garbage", [](Scripted& c) { c.Write("HTTP/1.1 400 Bad Request\r\n\r\n"); }},
                      Misbehaviour{"EndlessString",
                                   [](Scripted& c) {
                                     c.Write("$4294967295\r\n");
                                     const std::string chunk(1 << 20, 'x');
                                     while (c.Write(chunk)) {
                                     }
                                   }},
                      Misbehaviour{"HugeArray", [](Scripted& c) { c.Write("*2147483647\r\n"); }},
                      Misbehaviour{"DeepNesting",
                                   [](Scripted& c) {
                                     for (int i = 0; i < 100; ++i) c.Write("*1\r\n");
                                   }},
                      Misbehaviour{"Stall", [](Scripted& c) { c.WaitForEnd(); }},
                      Misbehaviour{"Trickle",
                                   [](Scripted& c) {
                                     const std::string answer = "$1000\r\n" + std::string(1000, 'x');
                                     for (size_t i = 0; i < answer.size() && c.Write(answer.substr(i, 1)); ++i) {
                                       absl::SleepFor(absl::Milliseconds(100));
                                     }
                                   }},
                      Misbehaviour{"CloseWithinAnAnswer", [](Scripted& c) { c.Write("$10\r\nabc"); }},
                      Misbehaviour{"CloseAtOnce", [](Scripted&) {}}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_F(ClientTest, AnswersThatNobodyAskedForEndTheConnection) {
  std::promise<void> given_up;
  ScriptedServer server([&](Scripted& c) {
    c.ReadCommand();
    c.Write("+PONG\r\n");
    c.ReadCommand();
    c.Write(c.number() == 0 ? ":1\r\n:2\r\n:3\r\n" : ":7\r\n");
    c.WaitForEnd();
    if (c.number() == 0) given_up.set_value();
  });
  auto client = Connect(server);
  EXPECT_EQ(Run(*client, {"GET", "k"}).value().integer, 1);
  EXPECT_EQ(given_up.get_future().wait_for(std::chrono::seconds(60)), std::future_status::ready);
  EXPECT_EQ(Run(*client, {"GET", "k"}).value().integer, 7);  // and not 2
}

TEST_F(ClientTest, ACommandIsWrittenWhileAnAnswerIsAwaited) {
  // The first answer comes only once the second command has arrived.
  ScriptedServer server([](Scripted& c) {
    c.ReadCommand();
    c.Write("+PONG\r\n");
    c.ReadCommand();
    c.ReadCommand();
    c.Write(":1\r\n:2\r\n");
    c.WaitForEnd();
  });
  auto client = Connect(server);
  std::optional<absl::StatusOr<Reply>> first, second;
  async::TaskScope scope(runtime_.executor());
  scope.Spawn(testing::Into(client->Command({"GET", "1"}), first));
  scope.Spawn(testing::Into(client->Command({"GET", "2"}), second));
  scope.JoinBlocking();
  ASSERT_TRUE(first->ok() && second->ok()) << first->status() << second->status();
  EXPECT_EQ((*first)->integer + (*second)->integer, 3);
}

TEST_F(ClientTest, AServerThatAlwaysClosesIsNotStormed) {
  ScriptedServer server([](Scripted&) {});
  auto client = Connect(server);
  EXPECT_TRUE(Eventually([&] { return server.connections() >= 4; }));
  const absl::Time start = absl::Now();
  EXPECT_TRUE(Eventually([&] { return server.connections() >= 6; }));
  EXPECT_GT(absl::Now() - start, Node::kLeastBackoff * 4);  // by then it waits 16 times as long, less the jitter
  EXPECT_FALSE(client->connected());
}

TEST_F(ClientTest, ARefusedPasswordIsSaidWithoutThePassword) {
  ScriptedServer server([](Scripted& c) {
    const auto auth = c.ReadCommand();  // as old servers answer an unknown command: with its arguments
    c.Write(absl::StrCat("-ERR unknown command 'AUTH', with args beginning with: '", auth.back(), "'\r\n"));
    c.WaitForEnd();
  });
  auto client = Connect(absl::StrCat("redis://u:geheim@127.0.0.1:", server.port()));
  const absl::Status status = Run(*client, {"GET", "k"}).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_EQ(std::string(status.message()).find("geheim"), std::string::npos) << status;
}

TEST_F(ClientTest, TlsIsNeverGivenUpForClearText) {
  ScriptedServer server([](Scripted& c) { c.Write("+OK\r\n+PONG\r\n:1\r\n"); });
  auto client = Connect(absl::StrCat("rediss://:geheim@127.0.0.1:", server.port()));
  EXPECT_TRUE(absl::IsUnavailable(Run(*client, {"GET", "k"}).status()));
  EXPECT_FALSE(client->connected());
}

TEST_F(ClientTest, TooManyWaitingCommandsAreRefused) {
  ScriptedServer server([](Scripted& c) {
    c.ReadCommand();
    c.Write("+PONG\r\n");
    c.WaitForEnd();
  });
  auto client = Connect(server);
  std::vector<std::optional<absl::StatusOr<Reply>>> replies(Node::kMaxPending + 1);
  async::TaskScope scope(runtime_.executor());
  for (auto& reply : replies) scope.Spawn(testing::Into(client->Command({"GET", "k"}), reply));
  EXPECT_TRUE(Eventually([&] { return scope.size() == Node::kMaxPending; }));
  client->Stop();
  scope.JoinBlocking();
  size_t refused = 0;
  for (auto& reply : replies) refused += absl::IsResourceExhausted(reply->status()) ? 1 : 0;
  EXPECT_EQ(refused, 1u);
}

TEST_F(ClientTest, WhatCanNotShareAConnectionIsRefused) {
  ScriptedServer server([](Scripted& c) { c.WaitForEnd(); });
  auto client = Connect(server);
  for (const char* name : {"multi", "SUBSCRIBE", "EVAL", "XREAD"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Run(*client, {name, "k"}).status())) << name;
  }
  EXPECT_TRUE(absl::IsInvalidArgument(testing::Await(runtime_, client->Eval("return 1", {"a", "b"}, {})).status()));
}

TEST_F(ClientTest, StopFailsWhatIsPending) {
  std::promise<void> asked;
  ScriptedServer server([&](Scripted& c) {
    c.ReadCommand();
    c.Write("+PONG\r\n");
    c.ReadCommand();
    asked.set_value();
    c.WaitForEnd();
  });
  auto client = Connect(server);
  std::optional<absl::StatusOr<Reply>> reply;
  async::TaskScope scope(runtime_.executor());
  scope.Spawn(testing::Into(client->Command({"GET", "k"}), reply));
  asked.get_future().wait();
  client->Stop();
  scope.JoinBlocking();
  EXPECT_TRUE(absl::IsCancelled(reply->status())) << reply->status();
  EXPECT_TRUE(absl::IsCancelled(Run(*client, {"GET", "k"}).status()));
}

// ---- States of a real server

class RealTest : public ClientTest {
 protected:
  absl::Status Write(Commands& redis) { return Eval(redis, kWrite).status(); }
  const std::string kWrite = "return redis.call('SET', KEYS[1], ARGV[1])";
  RedisServer server_{{"--busy-reply-threshold", "50", "--enable-debug-command", "local"}};
};

TEST_F(RealTest, ItIsToldWhenTheConnectionComesAndGoes) {
  auto client = Connect(server_.url());
  EXPECT_TRUE(Eventually([&] { return up_ && client->connected(); }));
  server_.Kill();  // noticed without a command
  EXPECT_TRUE(Eventually([&] { return !up_ && !client->connected(); }));
  EXPECT_TRUE(absl::IsUnavailable(Run(*client, {"PING"}).status()));
  server_.Start();
  EXPECT_TRUE(Eventually([&] { return up_.load(); }));
  EXPECT_EQ(changes_, 3);
  EXPECT_TRUE(Run(*client, {"PING"}).ok());
}

TEST_F(RealTest, ForgottenScriptsAreSentAgain) {
  auto client = Connect(server_.url());
  EXPECT_TRUE(Write(*client).ok());
  server_.Cli("script flush");
  EXPECT_TRUE(Write(*client).ok());
  server_.Kill();
  server_.Start();
  EXPECT_TRUE(Eventually([&] { return Write(*client).ok(); }));
}

TEST_F(RealTest, ReplicaFullMemoryAndFailedSavePass) {
  auto client = Connect(server_.url());
  const auto passes = [&](const char* code, const std::string& into, const std::string& out_of) {
    server_.Cli(into);
    absl::Status status;
    EXPECT_TRUE(Eventually([&] {
      status = Write(*client);
      return std::string(status.message()).find(code) != std::string::npos;
    })) << code
        << ": " << status;
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    server_.Cli(out_of);
    EXPECT_TRUE(Eventually([&] { return Write(*client).ok(); })) << code;
  };
  EXPECT_TRUE(Write(*client).ok());
  passes("READONLY", "replicaof 127.0.0.1 1", "replicaof no one");
  passes("OOM", "config set maxmemory 1", "config set maxmemory 0");
  // A due save that fails, since its file's name is taken by a folder.
  server_.BlockSaving();
  passes("MISCONF", "config set save '1 1'", "config set save ''");
}

TEST_F(RealTest, AScriptThatRunsTooLongAnswersBusyAndIsKilled) {
  auto client = Connect(server_.url());
  std::optional<absl::StatusOr<Reply>> endless;
  async::TaskScope scope(runtime_.executor());
  const std::string script = "while true do end";
  std::vector<std::string> keys{"k"};
  scope.Spawn(testing::Into(client->Eval(script, keys, {}), endless));
  auto other = Connect(server_.url());  // the first one's connection waits for its script
  EXPECT_TRUE(Eventually([&] {
    const absl::Status status = Run(*other, {"GET", "k"}).status();
    return absl::IsUnavailable(status) && std::string(status.message()).find("BUSY") != std::string::npos;
  }));
  server_.Cli("script kill");
  scope.JoinBlocking();
  EXPECT_FALSE(endless->ok());
  EXPECT_TRUE(Eventually([&] { return Run(*client, {"GET", "k"}).ok(); }));
}

TEST_F(RealTest, APausedServerIsUnavailableInTimeAndComesBack) {
  auto client = Connect(server_.url(), absl::Seconds(1));
  EXPECT_TRUE(Write(*client).ok());
  server_.Pause();
  EXPECT_TRUE(absl::IsUnavailable(Write(*client)));
  EXPECT_TRUE(Eventually([&] { return !client->connected(); }));
  server_.Resume();
  EXPECT_TRUE(Eventually([&] { return Write(*client).ok(); }));
}

TEST_F(RealTest, UsersPasswordsAndDatabases) {
  server_.Cli("acl setuser worker on '>p@ss' '~*' +@all");
  server_.Cli("config set requirepass top");
  const std::string at = absl::StrCat("127.0.0.1:", server_.port());
  EXPECT_TRUE(Run(*Connect("redis://worker:p%40ss@" + at), {"SET", "k", "zero"}).ok());
  EXPECT_TRUE(Run(*Connect("redis://:top@" + at + "/2"), {"GET", "k"}).value().string.empty());
  EXPECT_EQ(Run(*Connect("redis://:top@" + at), {"GET", "k"}).value().string, "zero");
  for (const char* wrong : {"redis://", "redis://worker:geheim@", "redis://:geheim@"}) {
    const absl::Status status = Run(*Connect(wrong + at), {"GET", "k"}).status();
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_EQ(std::string(status.message()).find("geheim"), std::string::npos) << status;
  }
  const absl::Status status = Run(*Connect("redis://:top@" + at + "/99"), {"GET", "k"}).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
}

// The system's trust store is named by SSL_CERT_FILE here; it is read at the dialer's first TLS connection.
TEST_F(ClientTest, TlsToATrustedServerAndToNoOther) {
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / ("poststelle-tls-" + RandomId());
  std::filesystem::create_directory(folder);
  const std::string make =
      absl::StrCat("cd ", folder.string(),
                   " && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key "
                   "-out pem -days 10 -subj /CN=test -addext subjectAltName=IP:127.0.0.1 2>/dev/null");
  ASSERT_EQ(std::system(make.c_str()), 0);
  const uint16_t port = testing::FreePort();
  const std::string pem = (folder / "pem").string(), key = (folder / "key").string();
  RedisServer server({"--tls-port", absl::StrCat(port), "--tls-cert-file", pem, "--tls-key-file", key,
                      "--tls-ca-cert-file", pem, "--tls-auth-clients", "no", "--requirepass", "geheim"});
  const std::string url = absl::StrCat("rediss://:geheim@127.0.0.1:", port);
  const absl::Status untrusted = Run(*Connect(url), {"PING"}).status();
  EXPECT_TRUE(absl::IsUnavailable(untrusted)) << untrusted;
  setenv("SSL_CERT_FILE", pem.c_str(), 1);
  dialer_ = net::MakeTcpDialer(net::MakeResolver(runtime_.executor()), net::EgressPolicy::Unrestricted());
  auto client = Connect(url);
  EXPECT_EQ(Run(*client, {"PING"}).value_or(Reply{}).string, "PONG");
  // Writing while reading, over TLS: many at once.
  std::vector<std::optional<absl::StatusOr<Reply>>> replies(500);
  async::TaskScope scope(runtime_.executor());
  for (auto& reply : replies) scope.Spawn(testing::Into(client->Command({"INCR", "k"}), reply));
  scope.JoinBlocking();
  for (auto& reply : replies) EXPECT_TRUE(reply->ok()) << reply->status();
  client->Stop();
  unsetenv("SSL_CERT_FILE");
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace poststelle::redis
