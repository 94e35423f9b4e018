// The egress policy at work: what is looked up is what is judged is what is connected to. That no packet leaves is
// shown by tests/egress/.
#include "libs/net/dialer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "libs/async/runtime.h"
#include "libs/testing/await.h"
#include "libs/testing/scripted_server.h"
#include "libs/testing/socket.h"

namespace poststelle::net {
namespace {

using Answer = std::vector<std::string>;

// Gives one answer after the other, whatever the name.
class FakeResolver : public Resolver {
 public:
  explicit FakeResolver(std::vector<Answer> answers) : answers_(std::move(answers)) {}
  async::Task<absl::StatusOr<std::vector<asio::ip::address>>> Resolve(std::string, absl::Duration) override {
    std::vector<asio::ip::address> out;
    for (const std::string& address : answers_.at(lookups_++)) out.push_back(asio::ip::make_address(address));
    co_return out;
  }
  size_t lookups() const { return lookups_; }

 private:
  const std::vector<Answer> answers_;
  size_t lookups_ = 0;
};

async::Task<absl::Status> Try(Dialer& dialer, std::string host, uint16_t port) {
  const absl::StatusOr<std::unique_ptr<Stream>> stream = co_await dialer.Dial(host, port, absl::Seconds(30));
  co_return stream.status();
}

class EgressTest : public ::testing::Test {
 protected:
  absl::Status Dial(Dialer& dialer, const std::string& host, uint16_t port) {
    return poststelle::testing::Await(runtime_, Try(dialer, host, port));
  }
  // A dialer that may go to `allowed`, on the given answers.
  std::unique_ptr<Dialer> MakeDialer(const std::string& allowed, std::vector<Answer> answers) {
    resolver_ = std::make_shared<FakeResolver>(std::move(answers));
    EgressPolicy policy;
    EXPECT_TRUE(policy.Allow(allowed).ok());
    return MakeTcpDialer(resolver_, policy);
  }

  async::Runtime runtime_{2};
  std::shared_ptr<FakeResolver> resolver_;
  poststelle::testing::ScriptedServer server_{
      [](poststelle::testing::ScriptedServer::Connection& connection) { connection.WaitForEnd(); }};
};

TEST_F(EgressTest, EveryForbiddenAddressIsRefusedInTheSameWords) {
  const std::unique_ptr<Dialer> dialer = MakeTcpDialer(MakeResolver(runtime_.executor()), EgressPolicy());
  std::ifstream table(FORBIDDEN_ADDRESSES);
  std::set<std::string> words;
  int refused = 0;
  for (std::string line; std::getline(table, line);) {
    if (line.starts_with('#')) continue;
    std::string host;
    std::istringstream(line) >> host;
    const absl::Status status = Dial(*dialer, host, server_.port());
    EXPECT_EQ(GetNetError(status), NetError::kEgress) << line << ": " << status;
    words.insert(std::string(status.message()));
    ++refused;
  }
  EXPECT_GE(refused, 80);
  EXPECT_THAT(words,
              ::testing::ElementsAre("the server address is not allowed by the egress policy of this installation."));
  EXPECT_EQ(GetNetError(Dial(*dialer, "localhost", server_.port())), NetError::kEgress);
  EXPECT_EQ(server_.connections(), 0);
}

TEST_F(EgressTest, TheSpellingsOfOldAreConnectedToWhereTheyAreAllowed) {
  const std::unique_ptr<Dialer> dialer = MakeTcpDialer(MakeResolver(runtime_.executor()), EgressPolicy::Unrestricted());
  for (const char* host : {"127.1", "2130706433", "0x7f.1", "0177.0.0.1", "::ffff:127.0.0.1"}) {
    const absl::Status status = Dial(*dialer, host, server_.port());
    EXPECT_TRUE(status.ok()) << host << ": " << status;
  }
}

TEST_F(EgressTest, ANameThatChangesItsAnswerIsLookedUpOnceAndJudgedByThatAnswer) {
  const std::unique_ptr<Dialer> dialer =
      MakeDialer("127.0.0.1", {{"127.0.0.1"}, {"127.0.0.2"}, {"127.0.0.1"}, {"169.254.169.254"}});
  EXPECT_TRUE(Dial(*dialer, "rebinding.test", server_.port()).ok());
  EXPECT_EQ(resolver_->lookups(), 1u);
  EXPECT_EQ(GetNetError(Dial(*dialer, "rebinding.test", server_.port())), NetError::kEgress);
  EXPECT_EQ(resolver_->lookups(), 2u);
  EXPECT_TRUE(Dial(*dialer, "rebinding.test", server_.port()).ok());
  EXPECT_EQ(GetNetError(Dial(*dialer, "rebinding.test", server_.port())), NetError::kEgress);
  EXPECT_EQ(resolver_->lookups(), 4u);
  EXPECT_TRUE(poststelle::testing::Eventually([&] { return server_.connections() == 2; }));
}

TEST_F(EgressTest, OfSeveralAddressesOnlyTheAllowedOnesAreTried) {
  Answer many(20, "10.0.0.1");
  many.push_back("127.0.0.1");
  const std::unique_ptr<Dialer> dialer = MakeDialer("127.0.0.0/30", {many, {"10.0.0.1", "127.0.0.2", "fd00::1"}});
  EXPECT_TRUE(Dial(*dialer, "several.test", server_.port()).ok());
  const absl::Status refused = Dial(*dialer, "several.test", server_.port());  // nobody listens on 127.0.0.2
  EXPECT_EQ(GetNetError(refused), NetError::kConnect);
  EXPECT_THAT(std::string(refused.message()), ::testing::HasSubstr("127.0.0.2"));
  EXPECT_THAT(std::string(refused.message()), ::testing::Not(::testing::HasSubstr("10.0.0.1")));
  EXPECT_THAT(std::string(refused.message()), ::testing::Not(::testing::HasSubstr("fd00::1")));
}

TEST_F(EgressTest, APortThatIsNotAllowedIsRefusedToo) {
  const std::unique_ptr<Dialer> dialer =
      MakeDialer(absl::StrCat("127.0.0.1:", server_.port()), {{"127.0.0.1"}, {"127.0.0.1"}});
  EXPECT_TRUE(Dial(*dialer, "ports.test", server_.port()).ok());
  EXPECT_EQ(GetNetError(Dial(*dialer, "ports.test", server_.port() - 1)), NetError::kEgress);
}

}  // namespace
}  // namespace poststelle::net
