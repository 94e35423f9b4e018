#include "services/config/suggest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "libs/rpc/status.h"
#include "libs/testing/await.h"
#include "services/config/duplicate.h"
#include "services/config/mailbox_validator.h"

namespace poststelle::config {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Response = v1::SuggestSettingsResponse;

class FakeLookup : public ServerLookup {
 public:
  async::Task<absl::StatusOr<fetcher::v1::LookUpServersResponse>> LookUpServers(std::string domain) override {
    asked.push_back(std::move(domain));
    co_return answer;
  }
  absl::StatusOr<fetcher::v1::LookUpServersResponse> answer = fetcher::v1::LookUpServersResponse();
  std::vector<std::string> asked;
};

class SuggestTest : public ::testing::Test {
 protected:
  Response Suggest(const std::string& address) {
    v1::SuggestSettingsRequest request;
    request.set_address(address);
    Response response;
    const grpc::Status status = testing::Await(runtime_, config::Suggest(lookup_, request, response));
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  static std::vector<std::string> Shown(const google::protobuf::RepeatedPtrField<v1::Connection>& servers) {
    std::vector<std::string> out;
    for (const v1::Connection& server : servers) {
      out.push_back(absl::StrCat(v1::Connection::Protocol_Name(server.protocol()).substr(9), " ", server.host(), ":",
                                 server.port(), " ", v1::Connection::Encryption_Name(server.encryption()).substr(11)));
    }
    return out;
  }
  static std::vector<std::string> Reasons(const Response& response) {
    std::vector<std::string> out;
    for (const v1::Warning& warning : response.warnings()) out.push_back(warning.reason());
    return out;
  }

  async::Runtime runtime_{1};
  FakeLookup lookup_;
};

TEST_F(SuggestTest, AKnownDomainNeedsNobody) {
  const Response found = Suggest("support@gmx.de");
  EXPECT_EQ(found.source(), Response::SOURCE_PROVIDER);
  EXPECT_EQ(found.provider().id(), "gmx");
  EXPECT_THAT(Shown(found.inbound()), ElementsAre("IMAP imap.gmx.net:993 TLS"));
  EXPECT_THAT(Shown(found.outbound()), ElementsAre("SMTP mail.gmx.net:465 TLS", "SMTP mail.gmx.net:587 STARTTLS"));
  EXPECT_EQ(found.login_name(), "support@gmx.de");
  EXPECT_THAT(lookup_.asked, IsEmpty());
}

TEST_F(SuggestTest, WhatAPersonHasToKnowComesWithIt) {
  const Response google = Suggest("support@gmail.com");
  EXPECT_THAT(Reasons(google), ElementsAre("APP_PASSWORD_NEEDED"));
  EXPECT_EQ(google.provider().min_fetch_interval().seconds(), 600);
  EXPECT_EQ(google.provider().max_connections(), 15);
  EXPECT_TRUE(google.provider().password_sign_in());
  EXPECT_FALSE(google.provider().notes().empty());
  const Response outlook = Suggest("support@outlook.com");
  EXPECT_THAT(Reasons(outlook), ElementsAre("PASSWORD_SIGN_IN_ENDED"));
  EXPECT_FALSE(outlook.provider().password_sign_in());
  const Response tuta = Suggest("support@tuta.com");
  EXPECT_THAT(tuta.inbound(), IsEmpty());
  EXPECT_FALSE(tuta.provider().notes().empty());
}

TEST_F(SuggestTest, ADomainThatAnnouncesItsServersIsTakenByItsWord) {
  v1::Connection& server = *lookup_.answer->add_inbound();
  server.set_protocol(v1::Connection::PROTOCOL_IMAP);
  server.set_host("mail.example.org");
  server.set_port(1993);
  server.set_encryption(v1::Connection::ENCRYPTION_TLS);
  lookup_.answer->add_mail_exchangers("aspmx.l.google.com");
  const Response found = Suggest("support@example.org");
  EXPECT_EQ(found.source(), Response::SOURCE_DNS_SRV);
  EXPECT_THAT(Shown(found.inbound()), ElementsAre("IMAP mail.example.org:1993 TLS"));
  EXPECT_FALSE(found.has_provider());
}

TEST_F(SuggestTest, AnnouncedServersOfAKnownProviderTellTheProvider) {
  v1::Connection& server = *lookup_.answer->add_inbound();
  server.set_host("imap.mailbox.org");
  const Response found = Suggest("support@example.org");
  EXPECT_EQ(found.source(), Response::SOURCE_DNS_SRV);
  EXPECT_EQ(found.provider().id(), "mailbox-org");
}

TEST_F(SuggestTest, AProviderIsKnownByWhoReceivesTheMail) {
  lookup_.answer->add_mail_exchangers("filter.example.com");
  lookup_.answer->add_mail_exchangers("example-org.mail.protection.outlook.com");
  const Response found = Suggest("support@example.org");
  EXPECT_EQ(found.source(), Response::SOURCE_DNS_MX);
  EXPECT_EQ(found.provider().id(), "microsoft365");
  EXPECT_THAT(Shown(found.outbound()), ElementsAre("SMTP smtp.office365.com:587 STARTTLS"));
  EXPECT_THAT(Reasons(found), ElementsAre("PASSWORD_SIGN_IN_ENDED"));
}

TEST_F(SuggestTest, WhereTheServerIsTheMailExchanger) {
  lookup_.answer->add_mail_exchangers("w0123456.kasserver.com");
  EXPECT_THAT(Shown(Suggest("support@example.org").inbound()), ElementsAre("IMAP w0123456.kasserver.com:993 TLS"));
}

TEST_F(SuggestTest, OtherwiseItIsAGuess) {
  const Response found = Suggest("support@Example.org");
  EXPECT_EQ(found.source(), Response::SOURCE_GUESS);
  EXPECT_THAT(Shown(found.inbound()), ElementsAre("IMAP imap.example.org:993 TLS"));
  EXPECT_THAT(Shown(found.outbound()), ElementsAre("SMTP smtp.example.org:465 TLS"));
  EXPECT_EQ(found.login_name(), "support@Example.org");
  EXPECT_THAT(found.warnings(), IsEmpty());
}

TEST_F(SuggestTest, AGuessForWantOfAnAnswerSaysSo) {
  lookup_.answer = absl::UnavailableError("the fetcher is away");
  const Response found = Suggest("support@example.org");
  EXPECT_EQ(found.source(), Response::SOURCE_GUESS);
  EXPECT_THAT(Reasons(found), ElementsAre("LOOKUP_FAILED"));
}

TEST_F(SuggestTest, DomainsBeyondAsciiAreAskedForInTheirAsciiForm) {
  Suggest("post@Bücher.example");
  Suggest("post@straße.example");
  EXPECT_THAT(lookup_.asked, ElementsAre("xn--bcher-kva.example", "xn--strae-oqa.example"));
}

TEST_F(SuggestTest, WhatIsNoAddressIsRefused) {
  for (const std::string& address :
       {std::string(), std::string("example.org"), std::string("@example.org"), std::string("a@"),
        std::string("a@example..org"), std::string("a@exa mple.org"), std::string("a@[127.0.0.1]"),
        std::string("a@example.org\0b", 15), "a@" + std::string(64, 'x') + ".org", "a@" + std::string(300, 'x'),
        std::string("a@exa/mple.org")}) {
    v1::SuggestSettingsRequest request;
    request.set_address(address);
    Response response;
    const grpc::Status status = testing::Await(runtime_, config::Suggest(lookup_, request, response));
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << address;
    const auto violations = rpc::ViolationsOf(status);
    ASSERT_EQ(violations.size(), 1) << address;
    EXPECT_EQ(violations[0].field, "address");
  }
  EXPECT_THAT(lookup_.asked, IsEmpty());
}

// The counterpart of a mailbox at `host`.
v1::Mailbox Counterpart(const std::string& host, v1::Connection::Encryption encryption, const std::string& address) {
  v1::Mailbox source;
  source.set_direction(v1::Mailbox::DIRECTION_INBOUND);
  source.set_address(address);
  source.mutable_connection()->set_protocol(v1::Connection::PROTOCOL_IMAP);
  source.mutable_connection()->set_host(host);
  source.mutable_connection()->set_encryption(encryption);
  v1::DuplicateMailboxRequest request;
  request.set_kind(v1::DuplicateMailboxRequest::KIND_COUNTERPART);
  std::vector<rpc::Violation> violations;
  v1::Mailbox made = DuplicateOf(source, request, violations);
  EXPECT_TRUE(violations.empty());
  EXPECT_EQ(made.connection().protocol(), v1::Connection::PROTOCOL_SMTP);
  // For the test of where a password may go.
  made.set_etag(SendsPasswordElsewhere(source, made, Elsewhere::kAnotherProvider) ? "asks for the password"
                                                                                  : "keeps it");
  return made;
}

TEST(Counterpart, HasTheProvidersUsualServer) {
  const v1::Mailbox gmx = Counterpart("imap.gmx.net", v1::Connection::ENCRYPTION_TLS, "support@example.org");
  EXPECT_EQ(gmx.connection().host(), "mail.gmx.net");
  EXPECT_EQ(gmx.connection().encryption(), v1::Connection::ENCRYPTION_TLS);
  EXPECT_EQ(gmx.etag(), "keeps it");
  EXPECT_EQ(Counterpart("outlook.office365.com", v1::Connection::ENCRYPTION_TLS, "a@example.org").connection().host(),
            "smtp.office365.com");
  EXPECT_EQ(Counterpart("outlook.office365.com", v1::Connection::ENCRYPTION_TLS, "a@hotmail.com").connection().host(),
            "smtp-mail.outlook.com");
}

TEST(Counterpart, APasswordDoesNotGoOverAWeakerConnectionUnasked) {
  const v1::Mailbox icloud = Counterpart("imap.mail.me.com", v1::Connection::ENCRYPTION_TLS, "support@icloud.com");
  EXPECT_EQ(icloud.connection().encryption(), v1::Connection::ENCRYPTION_STARTTLS);
  EXPECT_EQ(icloud.etag(), "asks for the password");
}

TEST(Counterpart, OfAnUnknownServerIsGuessedAndGetsNoPassword) {
  const v1::Mailbox made = Counterpart("imap.example.org", v1::Connection::ENCRYPTION_TLS, "support@gmx.net");
  EXPECT_EQ(made.connection().host(), "smtp.example.org");
  EXPECT_EQ(made.etag(), "asks for the password");
}

}  // namespace
}  // namespace poststelle::config
