// The driver against scripted servers on real sockets.
#include "libs/smtp/client.h"

#include <gtest/gtest.h>

#include <atomic>

#include "absl/strings/str_cat.h"
#include "libs/net/dialer.h"
#include "libs/testing/await.h"
#include "libs/testing/scripted_server.h"
#include "libs/testing/socket.h"

namespace poststelle::smtp {
namespace {

using testing::Await;
using testing::ScriptedServer;

// After what ends in `until`, says `answer`.
struct Exchange {
  std::string until;
  std::string answer;
};

ScriptedServer::Script Serve(std::vector<Exchange> exchanges, bool then_close) {
  return [exchanges = std::move(exchanges), then_close](ScriptedServer::Connection& connection) {
    for (const Exchange& e : exchanges) {
      if (!e.until.empty() && connection.ReadUntil(e.until).empty()) return;
      if (!connection.Write(e.answer)) return;
    }
    if (!then_close) connection.WaitForEnd();
  };
}

const std::vector<Exchange> kGoodServer = {{"", "220 hi\r\n"},
                                           {"EHLO [127.0.0.1]\r\n", "250-x\r\n250 8BITMIME\r\n"},
                                           {"MAIL FROM:<me@x>\r\n", "250 ok\r\n"},
                                           {"RCPT TO:<a@x>\r\n", "250 ok\r\n"},
                                           {"DATA\r\n", "354 go\r\n"},
                                           {"\r\n.\r\n", "250 2.0.0 queued\r\n"},
                                           {"QUIT\r\n", "221 bye\r\n"}};

class ClientTest : public ::testing::Test {
 protected:
  static ConnectOptions Options(uint16_t port) {
    ConnectOptions out;
    out.host = "127.0.0.1";
    out.port = port;
    out.encryption = Encryption::kNone;
    out.timeouts = Timeouts::All(absl::Seconds(60));
    return out;
  }
  static Envelope ToA() { return {*Address::Make("me@x"), {*Address::Make("a@x")}}; }
  PermitSource Permit(absl::Status status = absl::OkStatus()) {
    return [this, status]() -> async::Task<absl::Status> {
      ++asked_;
      co_return status;
    };
  }
  async::Task<SendResult> ConnectAndSend(ConnectOptions options, std::string message) {
    auto client = co_await Client::Connect(*dialer_, std::move(options));
    if (!client.ok()) {
      SendResult out;
      out.status = client.status();
      co_return out;
    }
    Envelope envelope = ToA();
    PermitSource permit = Permit();
    SendResult out = co_await (*client)->Send(std::move(envelope), message, std::move(permit));
    if (out.outcome == Outcome::kAccepted) quit_ = co_await (*client)->Quit();
    co_return out;
  }

  async::Runtime runtime_{2};
  std::unique_ptr<net::Dialer> dialer_ =
      net::MakeTcpDialer(net::MakeResolver(runtime_.executor()), net::EgressPolicy::Unrestricted());
  std::atomic<int> asked_{0};
  absl::Status quit_ = absl::UnknownError("not said");
};

TEST_F(ClientTest, SendsAndSaysGoodbye) {
  ScriptedServer server(Serve(kGoodServer, false));
  const SendResult sent = Await(runtime_, ConnectAndSend(Options(server.port()), "Subject: x\r\n\r\nhi\r\n"));
  EXPECT_EQ(sent.outcome, Outcome::kAccepted) << sent.status;
  EXPECT_EQ(asked_, 1);
  EXPECT_TRUE(quit_.ok()) << quit_;
}

TEST_F(ClientTest, AServerThatGoesOrFallsSilentAnywhere) {
  // n: how many of its lines the server still says.
  const Step steps[] = {Step::kGreeting, Step::kEhlo, Step::kMail, Step::kRcpt, Step::kData, Step::kFinal};
  for (size_t n = 0; n < std::size(steps); ++n) {
    for (const bool closes : {true, false}) {
      std::vector<Exchange> some(kGoodServer.begin(), kGoodServer.begin() + static_cast<std::ptrdiff_t>(n));
      some.push_back({kGoodServer[n].until, ""});  // it hears the next, and answers nothing
      asked_ = 0;
      ScriptedServer server(Serve(some, closes));
      ConnectOptions options = Options(server.port());
      if (!closes) {
        // Short for the step that hangs; the others share a limit that a slow machine keeps.
        const absl::Duration soon = absl::Milliseconds(200);
        options.timeouts.greeting = n == 0 ? soon : options.timeouts.greeting;
        options.timeouts.command = n >= 1 && n <= 3 ? absl::Seconds(3) : options.timeouts.command;
        options.timeouts.data = n == 4 ? soon : options.timeouts.data;
        options.timeouts.final = n == 5 ? soon : options.timeouts.final;
      }
      const SendResult sent = Await(runtime_, ConnectAndSend(std::move(options), "Subject: x\r\n\r\nhi\r\n"));
      EXPECT_EQ(sent.outcome, n == 5 ? Outcome::kUnknown : Outcome::kNotAccepted) << n;
      EXPECT_EQ(asked_, n == 5 ? 1 : 0) << n;
      const Failure failure = GetFailure(sent.status);
      EXPECT_EQ(failure.step, steps[n]) << sent.status;
      EXPECT_EQ(failure.kind, closes ? ErrorKind::kNetwork : ErrorKind::kTimeout) << sent.status;
      EXPECT_TRUE(failure.temporary);
    }
  }
}

TEST_F(ClientTest, AServerThatIsGoneBeforeTheEndIsNotAskedThePermitFor) {
  // It closes right after its 354. The message is more than the buffers of both sides can hold: only the end of the
  // connection lets the client go on, so that it can't be done before the server has closed.
  ScriptedServer server(Serve({kGoodServer.begin(), kGoodServer.begin() + 5}, true));
  std::string message;
  while (message.size() < 40'000'000) message += "a line of text\r\n";
  const SendResult sent = Await(runtime_, ConnectAndSend(Options(server.port()), message));
  EXPECT_EQ(sent.outcome, Outcome::kNotAccepted);
  EXPECT_EQ(GetFailure(sent.status).step, Step::kData) << sent.status;
  EXPECT_EQ(asked_, 0);
}

TEST_F(ClientTest, ARefusalBeforeTheEndIsHeard) {
  std::vector<Exchange> refuses(kGoodServer.begin(), kGoodServer.begin() + 5);
  refuses.push_back({"first line\r\n", "552 5.3.4 too much\r\n"});
  ScriptedServer server([&refuses](ScriptedServer::Connection& connection) { Serve(refuses, false)(connection); });
  std::string message = "first line\r\n";
  while (message.size() < 20'000'000) message += "a line of text\r\n";
  const SendResult sent = Await(runtime_, ConnectAndSend(Options(server.port()), message));
  EXPECT_EQ(sent.outcome, Outcome::kNotAccepted);
  EXPECT_EQ(GetFailure(sent.status).reply.code, 552) << sent.status;
  EXPECT_EQ(asked_, 0);
}

// It neither listens nor stays: what it said on the way out is read after the write has failed.
TEST_F(ClientTest, TheLastWordsOfAServerThatLeavesAreHeard) {
  std::vector<Exchange> leaves(kGoodServer.begin(), kGoodServer.begin() + 5);
  leaves.push_back({"first line\r\n", "552-5.3.4 too much\r\n552 5.3.4 of it\r\n"});
  for (int round = 0; round < 20; ++round) {
    ScriptedServer server(Serve(leaves, true));
    std::string message = "first line\r\n";
    while (message.size() < 40'000'000) message += "a line of text\r\n";
    const SendResult sent = Await(runtime_, ConnectAndSend(Options(server.port()), message));
    EXPECT_EQ(sent.outcome, Outcome::kNotAccepted);
    EXPECT_EQ(GetFailure(sent.status).reply.code, 552) << sent.status;
    EXPECT_EQ(asked_, 0);
  }
}

TEST_F(ClientTest, CancelledAfterThePermitIsUnknown) {
  std::atomic<bool> dot{false};
  ScriptedServer server([&dot](ScriptedServer::Connection& connection) {
    std::vector<Exchange> some(kGoodServer.begin(), kGoodServer.begin() + 5);
    Serve(some, true)(connection);
    connection.ReadUntil("\r\n.\r\n");
    dot = true;
    connection.WaitForEnd();
  });
  std::optional<SendResult> sent;
  async::TaskScope scope(runtime_.executor());
  scope.Spawn(testing::Into(ConnectAndSend(Options(server.port()), "Subject: x\r\n\r\nhi\r\n"), sent));
  ASSERT_TRUE(testing::Eventually([&dot] { return dot.load(); }));
  scope.Cancel();
  scope.JoinBlocking();
  ASSERT_TRUE(sent);
  EXPECT_EQ(sent->outcome, Outcome::kUnknown);
  EXPECT_EQ(GetFailure(sent->status).kind, ErrorKind::kCancelled) << sent->status;
}

TEST_F(ClientTest, ConnectingFails) {
  const SendResult refused = Await(runtime_, ConnectAndSend(Options(testing::FreePort()), ""));
  EXPECT_EQ(GetFailure(refused.status).step, Step::kConnect) << refused.status;
  EXPECT_EQ(GetFailure(refused.status).kind, ErrorKind::kNetwork);
  ScriptedServer plain(Serve(kGoodServer, false));
  ConnectOptions tls = Options(plain.port());
  tls.encryption = Encryption::kTls;
  tls.tls.server_name = "x.test";
  EXPECT_EQ(GetFailure(Await(runtime_, ConnectAndSend(std::move(tls), "")).status).step, Step::kTls);
  for (const std::string& name : {std::string("a\r\nMAIL FROM:<x>"), std::string(), std::string("a b")}) {
    ConnectOptions ehlo = Options(plain.port());
    ehlo.ehlo_name = name;
    EXPECT_EQ(GetFailure(Await(runtime_, ConnectAndSend(std::move(ehlo), "")).status).kind, ErrorKind::kUnfit);
  }
}

}  // namespace
}  // namespace poststelle::smtp
