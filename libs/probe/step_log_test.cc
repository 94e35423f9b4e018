#include "libs/probe/step_log.h"

#include <gtest/gtest.h>

#include <vector>

#include "libs/base/server_words.h"
#include "libs/net/certificate.h"
#include "libs/net/stream.h"

namespace poststelle::probe {
namespace {

config::v1::Mailbox MailboxAt(const std::string& host) {
  config::v1::Mailbox out;
  out.set_address("me@example.org");
  out.mutable_connection()->set_host(host);
  out.mutable_connection()->set_port(993);
  return out;
}

TEST(StepLogTest, EachStepBeginsAndEndsOnce) {
  std::vector<Step> told;
  StepLog log(MailboxAt("mail.test"), [&told](const Step& step) { told.push_back(step); });
  log.Begin(Step::KIND_NAME_LOOKUP);
  log.Detail("192.0.2.1");
  log.Begin(Step::KIND_CONNECT);
  log.Fail("CONNECTION_REFUSED", net::MakeNetError(net::NetError::kConnect, "no connection"));
  log.End();
  ASSERT_EQ(told.size(), 4u);
  EXPECT_EQ(told[0].outcome(), Step::OUTCOME_RUNNING);
  EXPECT_EQ(told[1].outcome(), Step::OUTCOME_OK);
  EXPECT_EQ(told[1].detail(), "192.0.2.1");
  EXPECT_TRUE(told[1].has_duration());
  EXPECT_EQ(told[3].outcome(), Step::OUTCOME_FAILED);
  EXPECT_EQ(told[3].detail(), "no connection");
  EXPECT_EQ(told[3].explanation().en(), "Nobody on mail.test accepts connections on port 993.");
  EXPECT_EQ(told[3].explanation().de(), "Auf mail.test nimmt an Port 993 niemand Verbindungen an.");
  EXPECT_TRUE(log.failed());
}

TEST(StepLogTest, ACertificateIsNamed) {
  net::Certificate certificate;
  certificate.subject = "server";
  certificate.dns_names = {"a.test", "b.test"};
  certificate.not_after = 1'700'000'000;
  StepLog log(MailboxAt("mail.test"), nullptr);
  log.Begin(Step::KIND_TLS);
  log.Fail("CERTIFICATE_NAME_MISMATCH",
           net::WithCertificate(net::MakeNetError(net::NetError::kCertificateName, "wrong"), certificate));
  EXPECT_EQ(log.step().explanation().en(), "The certificate is not made out to mail.test but to a.test, b.test.");
  EXPECT_EQ(log.step().certificate().dns_names_size(), 2);
  EXPECT_EQ(log.step().certificate().not_after().seconds(), 1'700'000'000);
}

TEST(StepLogTest, WordsOfTheServerAreKeptApart) {
  StepLog log(MailboxAt("mail.test"), nullptr);
  log.Begin(Step::KIND_SIGN_IN);
  log.Fail("AUTHENTICATION_REJECTED",
           WithServerWords(absl::UnknownError("the server said: no\x1b[2J"), std::string(600, 'x') + "\x1b\r\n"));
  EXPECT_EQ(log.step().detail(), "");
  EXPECT_EQ(log.step().server_words(), std::string(500, 'x'));
}

TEST(StepLogTest, EveryTextIsThereInBothLanguagesAndLeavesNoPlaceholder) {
  StepLog log(MailboxAt("mail.test"), nullptr);
  const net::Certificate certificate{"s", "i", {"n"}, 1, 2, "k"};
  for (const char* word : {"folder", "recipient"}) log.Say(word, "w");
  for (const std::string& reason : ReasonsWithTexts()) {
    for (int kind = Step::KIND_NAME_LOOKUP; kind <= Step::KIND_SEND; ++kind) {
      log.Begin(static_cast<Step::Kind>(kind));
      log.Fail(reason, net::WithCertificate(absl::UnknownError("x"), certificate));
      for (const auto* text : {&log.step().explanation(), &log.step().remedy()}) {
        EXPECT_FALSE(text->de().empty()) << reason;
        EXPECT_FALSE(text->en().empty()) << reason;
        EXPECT_EQ((text->de() + text->en()).find('{'), std::string::npos) << text->de() << text->en();
      }
    }
  }
}

}  // namespace
}  // namespace poststelle::probe
