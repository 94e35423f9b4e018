#include "services/config/warnings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace poststelle::config {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

v1::Mailbox At(const std::string& host, const std::string& address = "support@example.org") {
  v1::Mailbox mailbox;
  mailbox.set_direction(v1::Mailbox::DIRECTION_INBOUND);
  mailbox.set_address(address);
  mailbox.mutable_connection()->set_host(host);
  mailbox.mutable_connection()->set_encryption(v1::Connection::ENCRYPTION_TLS);
  mailbox.mutable_password_authentication();
  mailbox.mutable_import_options()->mutable_fetch_interval()->set_seconds(600);
  return mailbox;
}

std::vector<std::string> Reasons(v1::Mailbox mailbox) {
  AddWarnings(mailbox);
  std::vector<std::string> out;
  for (const v1::Warning& warning : mailbox.warnings()) {
    EXPECT_FALSE(warning.text().de().empty());
    EXPECT_FALSE(warning.text().en().empty());
    out.push_back(absl::StrCat(warning.field(), " ", warning.reason()));
  }
  return out;
}

constexpr char kInterval[] = "import_options.fetch_interval INTERVAL_BELOW_PROVIDER_MINIMUM";

TEST(Warnings, AnIntervalBelowWhatTheProviderAsksFor) {
  v1::Mailbox mailbox = At("imap.gmail.com");
  EXPECT_THAT(Reasons(mailbox), IsEmpty());
  mailbox.mutable_import_options()->mutable_fetch_interval()->set_seconds(599);
  EXPECT_THAT(Reasons(mailbox), ElementsAre(kInterval));
  AddWarnings(mailbox);
  EXPECT_THAT(mailbox.warnings(0).text().en(), HasSubstr("at least 10 minutes"));
  EXPECT_THAT(mailbox.warnings(0).text().de(), HasSubstr("mindestens 10 Minuten"));
  // Who says nothing asks for nothing.
  mailbox.mutable_connection()->set_host("imap.gmx.net");
  EXPECT_THAT(Reasons(mailbox), IsEmpty());
}

TEST(Warnings, AreNotForOutboundMailboxesWhereTheyAreAboutPolling) {
  v1::Mailbox mailbox = At("smtp.gmail.com");
  mailbox.set_direction(v1::Mailbox::DIRECTION_OUTBOUND);
  mailbox.clear_import_options();
  EXPECT_THAT(Reasons(mailbox), IsEmpty());
}

TEST(Warnings, AProviderThatTakesNoPasswords) {
  EXPECT_THAT(Reasons(At("outlook.office365.com")), ElementsAre("password_authentication PASSWORD_SIGN_IN_ENDED"));
  EXPECT_THAT(Reasons(At("imap-mail.outlook.com", "support@hotmail.com")),
              ElementsAre("password_authentication PASSWORD_SIGN_IN_ENDED"));
  v1::Mailbox sends = At("smtp.office365.com");
  sends.set_direction(v1::Mailbox::DIRECTION_OUTBOUND);
  sends.clear_import_options();
  EXPECT_THAT(Reasons(sends), IsEmpty());
  v1::Mailbox without = At("outlook.office365.com");
  without.clear_password_authentication();
  EXPECT_THAT(Reasons(without), IsEmpty());
}

TEST(Warnings, ClearTextThatLeavesTheMachine) {
  for (const char* host : {"imap.example.org", "10.0.0.1", "localhost.example.org"}) {
    v1::Mailbox mailbox = At(host);
    EXPECT_THAT(Reasons(mailbox), IsEmpty());
    mailbox.mutable_connection()->set_encryption(v1::Connection::ENCRYPTION_NONE);
    EXPECT_THAT(Reasons(mailbox), ElementsAre("connection.encryption CLEAR_TEXT")) << host;
  }
  for (const char* host : {"localhost", "LOCALHOST", "mail.localhost", "127.0.0.1", "127.1.2.3", "::1"}) {
    v1::Mailbox mailbox = At(host);
    mailbox.mutable_connection()->set_encryption(v1::Connection::ENCRYPTION_NONE);
    EXPECT_THAT(Reasons(mailbox), IsEmpty()) << host;
  }
  v1::Mailbox name = At("127.example.org");
  name.mutable_connection()->set_encryption(v1::Connection::ENCRYPTION_NONE);
  EXPECT_THAT(Reasons(name), ElementsAre("connection.encryption CLEAR_TEXT"));
}

TEST(Warnings, AreMadeAnew) {
  v1::Mailbox mailbox = At("imap.example.org");
  mailbox.add_warnings()->set_reason("OLD");
  EXPECT_THAT(Reasons(mailbox), IsEmpty());
}

}  // namespace
}  // namespace poststelle::config
