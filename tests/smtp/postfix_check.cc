// libs/smtp against the server that the environment names: POSTSTELLE_SMTP_PORT (STARTTLS), POSTSTELLE_SMTPS_PORT,
// POSTSTELLE_SMTP_CA (a file), accounts sender@localhost (password "secret") and a@localhost. What arrives is looked at
// by test_postfix.py.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "libs/net/dialer.h"
#include "libs/smtp/client.h"
#include "libs/testing/await.h"

namespace poststelle::smtp {
namespace {

using testing::Await;

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  EXPECT_NE(value, nullptr) << name;
  return value == nullptr ? "" : value;
}

class PostfixCheck : public ::testing::Test {
 protected:
  ConnectOptions Options(Encryption encryption) {
    ConnectOptions out;
    out.host = "localhost";
    out.port = static_cast<uint16_t>(
        std::atoi(Variable(encryption == Encryption::kTls ? "POSTSTELLE_SMTPS_PORT" : "POSTSTELLE_SMTP_PORT").c_str()));
    out.encryption = encryption;
    out.tls.server_name = "localhost";
    std::stringstream ca;
    ca << std::ifstream(Variable("POSTSTELLE_SMTP_CA")).rdbuf();
    out.tls.ca_certificates_pem = ca.str();
    out.timeouts = Timeouts::All(absl::Seconds(60));
    out.on_step = [this](Step step) { steps_.push_back(step); };
    return out;
  }
  std::unique_ptr<Client> SignedIn(ConnectOptions options) {
    auto client = Await(runtime_, Client::Connect(*dialer_, std::move(options)));
    EXPECT_TRUE(client.ok()) << client.status();
    const absl::Status in = Await(runtime_, (*client)->SignIn({"sender@localhost", SecretString("secret")}));
    EXPECT_TRUE(in.ok()) << in;
    return *std::move(client);
  }
  SendResult Send(Client& client, const std::vector<std::string>& recipients, const std::string& message,
                  absl::Status permit = absl::OkStatus()) {
    Envelope envelope;
    envelope.sender = *Address::Make("sender@localhost");
    for (const std::string& r : recipients) envelope.recipients.push_back(*Address::Make(r));
    PermitSource source = [permit]() -> async::Task<absl::Status> { co_return permit; };
    return Await(runtime_, client.Send(std::move(envelope), message, std::move(source)));
  }
  static std::string Mail(const std::string& subject, const std::string& body) {
    return "From: sender@localhost\r\nTo: a@localhost\r\nSubject: " + subject + "\r\nMessage-ID: <" + subject +
           "@localhost>\r\n\r\n" + body;
  }

  async::Runtime runtime_{2};
  std::unique_ptr<net::Dialer> dialer_ =
      net::MakeTcpDialer(net::MakeResolver(runtime_.executor()), net::EgressPolicy::Unrestricted());
  std::vector<Step> steps_;
};

TEST_F(PostfixCheck, SendsByEveryWay) {
  std::string large = ".dots\r\n..\r\n.\r\n";
  while (large.size() < 1'500'000) large += ".a line that begins with a dot\r\nand one without\r\n";
  for (const Encryption encryption : {Encryption::kStartTls, Encryption::kTls}) {
    for (const bool chunking : {true, false}) {
      ConnectOptions options = Options(encryption);
      options.use_chunking = chunking;
      auto client = SignedIn(std::move(options));
      EXPECT_TRUE(client->capabilities().pipelining && client->capabilities().chunking);
      const std::string name =
          std::string(encryption == Encryption::kTls ? "tls" : "starttls") + (chunking ? "-bdat" : "-data");
      const std::vector<std::pair<std::string, std::string>> bodies = {{"small", ".\r\n..\r\nhi\r\n"},
                                                                       {"large", large}};
      for (const auto& [size, body] : bodies) {
        const SendResult sent = Send(*client, {"a@localhost"}, Mail(name + "-" + size, body));
        EXPECT_EQ(sent.outcome, Outcome::kAccepted) << sent.status;
        EXPECT_NE(sent.final_reply.Text().find("queued as"), std::string::npos) << sent.final_reply.Text();
        EXPECT_EQ(sent.final_reply.enhanced, "2.0.0");
      }
      EXPECT_TRUE(Await(runtime_, client->Reset()).ok());
      EXPECT_TRUE(Await(runtime_, client->Quit()).ok());
    }
  }
}

TEST_F(PostfixCheck, TellsEachStep) {
  auto client = SignedIn(Options(Encryption::kStartTls));
  EXPECT_EQ(steps_, (std::vector<Step>{Step::kConnect, Step::kGreeting, Step::kEhlo, Step::kStartTls, Step::kTls,
                                       Step::kEhlo, Step::kAuth}));
}

TEST_F(PostfixCheck, OneBadRecipientDoesNotStopTheOthers) {
  auto client = SignedIn(Options(Encryption::kTls));
  const SendResult sent = Send(*client, {"nobody@localhost", "a@localhost"}, Mail("partly", "x\r\n"));
  EXPECT_EQ(sent.outcome, Outcome::kAccepted) << sent.status;
  EXPECT_EQ(sent.recipients[0].Quoted().substr(0, 9), "550 5.1.1") << sent.recipients[0].Quoted();
  EXPECT_TRUE(sent.recipients[1].positive());
  const SendResult none = Send(*client, {"nobody@localhost"}, Mail("to-nobody", "x\r\n"));
  EXPECT_EQ(none.outcome, Outcome::kNotAccepted);
  EXPECT_EQ(GetFailure(none.status).step, Step::kRcpt) << none.status;
  EXPECT_EQ(Send(*client, {"a@localhost"}, Mail("after-nobody", "x\r\n")).outcome, Outcome::kAccepted);
}

TEST_F(PostfixCheck, WithoutThePermitNothingArrives) {
  for (const bool chunking : {true, false}) {
    ConnectOptions options = Options(Encryption::kTls);
    options.use_chunking = chunking;
    auto client = SignedIn(std::move(options));
    const SendResult sent = Send(*client, {"a@localhost"}, Mail("withheld", "x\r\n"), absl::AbortedError("fenced"));
    EXPECT_EQ(sent.outcome, Outcome::kNotAccepted);
    EXPECT_EQ(GetFailure(sent.status).kind, ErrorKind::kNoPermit);
    EXPECT_EQ(client->usable(), chunking);
    if (chunking)
      EXPECT_EQ(Send(*client, {"a@localhost"}, Mail("after-withheld", "x\r\n")).outcome, Outcome::kAccepted);
  }
}

TEST_F(PostfixCheck, NothingIsSmuggled) {
  for (const bool chunking : {true, false}) {
    ConnectOptions options = Options(Encryption::kTls);
    options.use_chunking = chunking;
    auto client = SignedIn(std::move(options));
    const SendResult sent = Send(*client, {"a@localhost"},
                                 Mail(chunking ? "carrier-bdat" : "carrier-data",
                                      "x\n.\r\nMAIL FROM:<evil@localhost>\r\nRCPT TO:<a@localhost>\r\nDATA\r\nSubject: "
                                      "smuggled\r\n\r\nx\r.\r\n\n.\nend"));
    EXPECT_EQ(sent.outcome, Outcome::kAccepted) << sent.status;
  }
}

TEST_F(PostfixCheck, Unicode) {
  auto client = SignedIn(Options(Encryption::kTls));
  const SendResult sent = Send(*client, {"a@localhost"}, Mail("utf8-\xC3\xA4", "\xC3\xA4\r\n"));
  EXPECT_EQ(sent.outcome, Outcome::kAccepted) << sent.status;
}

TEST_F(PostfixCheck, MistakesAreNamed) {
  const auto failure = [this](ConnectOptions options) {
    auto client = Await(runtime_, Client::Connect(*dialer_, std::move(options)));
    return GetFailure(client.status());
  };
  auto wrong_password = Await(runtime_, Client::Connect(*dialer_, Options(Encryption::kTls)));
  ASSERT_TRUE(wrong_password.ok()) << wrong_password.status();
  const absl::Status in = Await(runtime_, (*wrong_password)->SignIn({"sender@localhost", SecretString("wrong")}));
  EXPECT_EQ(GetFailure(in).kind, ErrorKind::kAuthRejected) << in;
  EXPECT_EQ(GetFailure(in).reply.code, 535) << in;

  // Not signed in: refused, and not a defect of the message.
  const SendResult sent = Send(**wrong_password, {"a@elsewhere.test"}, Mail("relay", "x\r\n"));
  EXPECT_EQ(GetFailure(sent.status).step, Step::kRcpt) << sent.status;

  ConnectOptions name = Options(Encryption::kTls);
  name.tls.server_name = "other.test";
  EXPECT_EQ(failure(std::move(name)).step, Step::kTls);
  ConnectOptions port = Options(Encryption::kTls);
  port.port = Options(Encryption::kStartTls).port;
  EXPECT_EQ(failure(std::move(port)).step, Step::kTls);  // TLS on a plain port
  auto clear = Await(runtime_, Client::Connect(*dialer_, Options(Encryption::kNone)));
  ASSERT_TRUE(clear.ok());
  const absl::Status no_auth = Await(runtime_, (*clear)->SignIn({"sender@localhost", SecretString("secret")}));
  EXPECT_EQ(GetFailure(no_auth).kind, ErrorKind::kAuthUnavailable) << no_auth;
  const SendResult too_large = Send(**clear, {"a@localhost"}, Mail("too-large", std::string(11'000'000, '\n')));
  EXPECT_EQ(GetFailure(too_large.status).kind, ErrorKind::kTooLarge) << too_large.status;
}

}  // namespace
}  // namespace poststelle::smtp
