// Records from a name server of our own on this machine.
#include "libs/net/dns_records.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <map>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "libs/net/resolver.h"
#include "libs/net/stream.h"
#include "libs/testing/await.h"

namespace poststelle::net {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::string Short(uint16_t value) { return {static_cast<char>(value >> 8), static_cast<char>(value & 0xFF)}; }

// A name as it is on the wire.
std::string Wire(const std::string& name) {
  std::string out;
  for (const std::string& label : std::vector<std::string>(absl::StrSplit(name, '.', absl::SkipEmpty()))) {
    out += static_cast<char>(label.size()) + label;
  }
  return out + '\0';
}

std::string Srv(uint16_t priority, uint16_t weight, uint16_t port, const std::string& target) {
  return Short(priority) + Short(weight) + Short(port) + Wire(target);
}
std::string Mx(uint16_t preference, const std::string& host) { return Short(preference) + Wire(host); }

// Answers over UDP. What it does not know does not exist.
class NameServer {
 public:
  struct Answer {
    std::vector<std::string> records;
    int code = 0;
    bool silent = false;
  };
  explicit NameServer(std::map<std::string, Answer> answers) : answers_(std::move(answers)) {
    fd_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    address_ = absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
    thread_ = std::thread([this] { Serve(); });
  }
  ~NameServer() {
    shutdown(fd_, SHUT_RDWR);
    thread_.join();
    close(fd_);
  }
  const std::string& address() const { return address_; }

 private:
  void Serve() {
    while (true) {
      char query[512];
      sockaddr_in client{};
      socklen_t size = sizeof client;
      const ssize_t length = recvfrom(fd_, query, sizeof query, 0, reinterpret_cast<sockaddr*>(&client), &size);
      if (length <= 12) return;
      std::string name;
      size_t at = 12;
      for (; query[at] != 0; at += static_cast<size_t>(query[at]) + 1) {
        name += (name.empty() ? "" : ".") + std::string(query + at + 1, static_cast<size_t>(query[at]));
      }
      const std::string question(query + 12, at + 5 - 12);
      const auto found = answers_.find(name);
      Answer answer;
      if (found != answers_.end()) {
        answer = found->second;
      } else {
        answer.code = 3;
      }
      if (answer.silent) continue;
      std::string reply = std::string(query, 2) + Short(static_cast<uint16_t>(0x8180 | answer.code)) + Short(1) +
                          Short(static_cast<uint16_t>(answer.records.size())) + Short(0) + Short(0) + question;
      for (const std::string& record : answer.records) {
        reply += Short(0xC00C) + question.substr(question.size() - 4) + Short(0) + Short(60) +
                 Short(static_cast<uint16_t>(record.size())) + record;
      }
      sendto(fd_, reply.data(), reply.size(), 0, reinterpret_cast<sockaddr*>(&client), size);
    }
  }

  const std::map<std::string, Answer> answers_;
  int fd_ = -1;
  std::string address_;
  std::thread thread_;
};

NameServer::Answer Records(std::vector<std::string> records) {
  NameServer::Answer answer;
  answer.records = std::move(records);
  return answer;
}
NameServer::Answer Code(int code) {
  NameServer::Answer answer;
  answer.code = code;
  return answer;
}
NameServer::Answer Silence() {
  NameServer::Answer answer;
  answer.silent = true;
  return answer;
}

class DnsRecordsTest : public ::testing::Test {
 protected:
  void Answer(std::map<std::string, NameServer::Answer> answers) {
    server_ = std::make_unique<NameServer>(std::move(answers));
    records_ = MakeDnsRecords(runtime_.executor(), server_->address());
  }
  absl::StatusOr<std::vector<std::string>> Services(const std::string& name,
                                                    absl::Duration timeout = absl::Seconds(60)) {
    auto found = testing::Await(runtime_, records_->Services(name, timeout));
    if (!found.ok()) return found.status();
    std::vector<std::string> out;
    for (const ServiceRecord& record : *found) out.push_back(absl::StrCat(record.host, ":", record.port));
    return out;
  }
  absl::StatusOr<std::vector<std::string>> Exchangers(const std::string& domain) {
    return testing::Await(runtime_, records_->MailExchangers(domain, absl::Seconds(60)));
  }

  async::Runtime runtime_{2};
  std::unique_ptr<NameServer> server_;
  std::unique_ptr<DnsRecords> records_;
};

TEST_F(DnsRecordsTest, ServicesByPriorityThenWeight) {
  Answer(
      {{"_imaps._tcp.example.org", Records({Srv(20, 9, 993, "last.example.org"), Srv(10, 1, 993, "light.example.org"),
                                            Srv(10, 5, 1993, "heavy.example.org")})}});
  EXPECT_THAT(*Services("_imaps._tcp.example.org"),
              ElementsAre("heavy.example.org:1993", "light.example.org:993", "last.example.org:993"));
}

TEST_F(DnsRecordsTest, ATargetOfADotIsNoPlace) {
  Answer({{"_imap._tcp.example.org", Records({Srv(0, 0, 0, "")})}, {"example.org", Records({Mx(0, "")})}});
  EXPECT_THAT(*Services("_imap._tcp.example.org"), IsEmpty());
  EXPECT_THAT(*Exchangers("example.org"), IsEmpty());
}

TEST_F(DnsRecordsTest, WhatIsNoHostNameIsLeftOut) {
  Answer(
      {{"_imaps._tcp.example.org", Records({Srv(1, 0, 993, "a b.example.org"), Srv(2, 0, 993, "imap.example.org")})}});
  EXPECT_THAT(*Services("_imaps._tcp.example.org"), ElementsAre("imap.example.org:993"));
}

TEST_F(DnsRecordsTest, NoNameAndNoRecordAreBothNone) {
  Answer({{"empty.example.org", Records({})}});
  EXPECT_THAT(*Services("_imaps._tcp.missing.example.org"), IsEmpty());
  EXPECT_THAT(*Exchangers("empty.example.org"), IsEmpty());
}

TEST_F(DnsRecordsTest, MailExchangersByPreference) {
  Answer({{"example.org", Records({Mx(20, "mx2.example.org"), Mx(5, "mx1.example.org")})}});
  EXPECT_THAT(*Exchangers("example.org"), ElementsAre("mx1.example.org", "mx2.example.org"));
}

TEST_F(DnsRecordsTest, AServerThatFailsIsAnError) {
  Answer({{"_imaps._tcp.example.org", Code(2)}});
  const auto found = Services("_imaps._tcp.example.org");
  EXPECT_EQ(GetNetError(found.status()), NetError::kResolve) << found.status();
}

TEST_F(DnsRecordsTest, ASilentServerIsWaitedForOnlySoLong) {
  Answer({{"_imaps._tcp.example.org", Silence()}});
  const auto found = Services("_imaps._tcp.example.org", absl::Milliseconds(50));
  EXPECT_EQ(GetNetError(found.status()), NetError::kTimeout) << found.status();
}

TEST_F(DnsRecordsTest, AddressesAreAskedForThereToo) {
  Answer({{"imap.example.org", Records({std::string("\x0A\x01\x00\x01", 4)})}});
  const auto resolver = MakeResolver(runtime_.executor(), server_->address());
  const auto found = testing::Await(runtime_, resolver->Resolve("imap.example.org", absl::Seconds(60)));
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->at(0).to_string(), "10.1.0.1");
}

TEST(NameServers, AreAddresses) {
  for (const char* good : {"127.0.0.1", "127.0.0.1:5353", "::1", "[::1]:5353"}) {
    EXPECT_TRUE(CheckNameServer(good).ok()) << good;
  }
  for (const char* bad : {"", "dns.example.org", "127.0.0.1:x"}) EXPECT_FALSE(CheckNameServer(bad).ok()) << bad;
}

}  // namespace
}  // namespace poststelle::net
