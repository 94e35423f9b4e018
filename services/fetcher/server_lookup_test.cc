#include "services/fetcher/server_lookup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "absl/strings/str_cat.h"
#include "libs/base/reason.h"
#include "libs/testing/await.h"

namespace poststelle::fetcher {
namespace {

using ::testing::ElementsAre;

net::ServiceRecord At(const std::string& host, uint16_t port) {
  net::ServiceRecord record;
  record.host = host;
  record.port = port;
  return record;
}

class FakeRecords : public net::DnsRecords {
 public:
  async::Task<absl::StatusOr<std::vector<net::ServiceRecord>>> Services(std::string name, absl::Duration) override {
    if (!broken.ok() && !services.contains(name)) co_return broken;
    co_return services[name];
  }
  async::Task<absl::StatusOr<std::vector<std::string>>> MailExchangers(std::string, absl::Duration) override {
    if (!broken.ok()) co_return broken;
    co_return exchangers;
  }
  std::map<std::string, std::vector<net::ServiceRecord>> services;
  std::vector<std::string> exchangers;
  absl::Status broken;  // of what is not in `services`
};

class ServerLookupTest : public ::testing::Test {
 protected:
  absl::StatusOr<v1::LookUpServersResponse> LookUp() {
    return testing::Await(runtime_, LookUpServers(runtime_.executor(), records_, "example.org", absl::Seconds(60)));
  }
  static std::vector<std::string> Shown(const google::protobuf::RepeatedPtrField<config::v1::Connection>& servers) {
    std::vector<std::string> out;
    for (const config::v1::Connection& server : servers) {
      out.push_back(absl::StrCat(config::v1::Connection::Protocol_Name(server.protocol()), " ", server.host(), ":",
                                 server.port(), " ", config::v1::Connection::Encryption_Name(server.encryption())));
    }
    return out;
  }

  async::Runtime runtime_{1};
  FakeRecords records_;
};

TEST_F(ServerLookupTest, TlsFromTheFirstByteComesFirst) {
  records_.services["_imap._tcp.example.org"] = {At("Mail.example.org", 143)};
  records_.services["_imaps._tcp.example.org"] = {At("imap.example.org", 993), At("backup.example.org", 1993)};
  records_.services["_submission._tcp.example.org"] = {At("mail.example.org", 587)};
  records_.services["_submissions._tcp.example.org"] = {At("mail.example.org", 465)};
  records_.exchangers = {"MX1.example.org"};
  const auto found = LookUp();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(Shown(found->inbound()), ElementsAre("PROTOCOL_IMAP imap.example.org:993 ENCRYPTION_TLS",
                                                   "PROTOCOL_IMAP backup.example.org:1993 ENCRYPTION_TLS",
                                                   "PROTOCOL_IMAP mail.example.org:143 ENCRYPTION_STARTTLS"));
  EXPECT_THAT(Shown(found->outbound()), ElementsAre("PROTOCOL_SMTP mail.example.org:465 ENCRYPTION_TLS",
                                                    "PROTOCOL_SMTP mail.example.org:587 ENCRYPTION_STARTTLS"));
  EXPECT_THAT(found->mail_exchangers(), ElementsAre("mx1.example.org"));
}

TEST_F(ServerLookupTest, NoRecordsAreNoFailure) {
  const auto found = LookUp();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->ByteSizeLong(), 0);
}

TEST_F(ServerLookupTest, OneAnswerIsEnough) {
  records_.broken = absl::UnavailableError("no answer");
  records_.services["_imaps._tcp.example.org"] = {At("imap.example.org", 993)};
  const auto found = LookUp();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->inbound_size(), 1);
}

TEST_F(ServerLookupTest, WithoutAnyAnswerItFails) {
  records_.broken = absl::UnavailableError("no answer");
  const auto found = LookUp();
  EXPECT_EQ(found.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(found.status()), "NAME_SERVERS_UNAVAILABLE");
}

TEST_F(ServerLookupTest, NotMoreThanTenOfAKind) {
  for (int i = 0; i < 40; ++i) {
    records_.services["_imaps._tcp.example.org"].push_back(At("imap.example.org", 993));
    records_.exchangers.push_back("mx.example.org");
  }
  const auto found = LookUp();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->inbound_size(), 10);
  EXPECT_EQ(found->mail_exchangers_size(), 10);
}

}  // namespace
}  // namespace poststelle::fetcher
