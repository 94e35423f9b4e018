#include "libs/smtp/reply.h"

#include <gtest/gtest.h>

#include "libs/net/stream.h"
#include "libs/smtp/capabilities.h"
#include "libs/smtp/error.h"

namespace poststelle::smtp {
namespace {

// Every reply in `bytes`, fed in pieces of `piece` bytes.
absl::StatusOr<std::vector<Reply>> Parse(std::string_view bytes, size_t piece) {
  ReplyParser parser;
  std::vector<Reply> out;
  for (size_t i = 0; i < bytes.size(); i += piece) {
    std::string_view part = bytes.substr(i, piece);
    while (!part.empty()) {
      std::optional<Reply> reply;
      absl::StatusOr<size_t> taken = parser.Feed(part, reply);
      if (!taken.ok()) return taken.status();
      part.remove_prefix(*taken);
      if (reply) out.push_back(*std::move(reply));
    }
  }
  return out;
}

TEST(ReplyParser, TellsRepliesHoweverTheyArriveInPieces) {
  const std::string bytes =
      "220-one\r\n220 two\r\n250\r\n550 5.1.1 no such user\r\n550-5.7.1 a\n550 5.7.1 b\n334 \r\n250 2.0.0\r\n"
      "450 5.1.1 class of another code\r\n550 5.1.1234 too long\r\n";
  for (size_t piece = 1; piece <= bytes.size(); ++piece) {
    auto replies = Parse(bytes, piece);
    ASSERT_TRUE(replies.ok()) << replies.status();
    ASSERT_EQ(replies->size(), 8U);
    EXPECT_EQ((*replies)[0].lines, (std::vector<std::string>{"one", "two"}));
    EXPECT_EQ((*replies)[1].code, 250);
    EXPECT_EQ((*replies)[2].enhanced, "5.1.1");
    EXPECT_EQ((*replies)[2].Quoted(), "550 5.1.1 \"no such user\"");
    EXPECT_EQ((*replies)[3].Text(), "a b");
    EXPECT_EQ((*replies)[4].code, 334);
    EXPECT_EQ((*replies)[5].enhanced, "2.0.0");
    EXPECT_EQ((*replies)[5].Text(), "");
    EXPECT_EQ((*replies)[6].enhanced, "");
    EXPECT_EQ((*replies)[7].enhanced, "");
  }
}

TEST(ReplyParser, WhatIsNoReplyIsRefused) {
  for (const std::string& bytes :
       {std::string("hello\r\n"), std::string("\r\n"), std::string("25\r\n"), std::string("250x\r\n"),
        std::string("199 a\r\n"), std::string("650 a\r\n"), std::string("2a0 a\r\n"), std::string("-50 a\r\n"),
        std::string(" 250 a\r\n"), std::string("250-a\r\n251 b\r\n"), std::string("250-a\r\n\r\n"),
        std::string("\0\0\0\r\n", 5), std::string("\xFF\xFE\r\n")}) {
    auto replies = Parse(bytes, 3);
    EXPECT_EQ(GetFailure(replies.status()).kind, ErrorKind::kProtocol) << bytes;
  }
}

TEST(ReplyParser, SaysWhoElseIsThere) {
  const std::pair<std::string, std::string> others[] = {{"* OK [CAPABILITY IMAP4rev1] hi\r\n", "IMAP"},
                                                        {"+OK ready\r\n", "POP3"},
                                                        {"HTTP/1.1 400 Bad Request\r\n", "HTTP"},
                                                        {"SSH-2.0-OpenSSH_9.2\r\n", "SSH"},
                                                        {"\x15\x03\x01\r\n", "TLS"}};
  for (const auto& [greeting, name] : others) {
    const std::string said(Parse(greeting, 100).status().message());
    EXPECT_NE(said.find(name), std::string::npos) << said;
  }
}

TEST(ReplyParser, LinesAndRepliesHaveAnEnd) {
  const std::string longest = "250 " + std::string(kMaxReplyLine - 6, 'x') + "\r\n";
  EXPECT_TRUE(Parse(longest, 7).ok());
  EXPECT_FALSE(Parse("250 " + std::string(kMaxReplyLine - 5, 'x') + "\r\n", 7).ok());
  EXPECT_FALSE(Parse(std::string(kMaxReplyLine + 1, '2'), 1).ok());  // without any end
  std::string lines;
  for (size_t i = 0; i + 1 < kMaxReplyLines; ++i) lines += "250-x\r\n";
  EXPECT_TRUE(Parse(lines + "250 x\r\n", 7).ok());
  EXPECT_FALSE(Parse(lines + "250-x\r\n250 x\r\n", 7).ok());
}

TEST(Reply, ItsTextCanStandAnywhere) {
  const std::string bytes = std::string("550 a\x01z\x1B[31mz\x7F\tz") + '\0' + "z \xFF\r\n";
  auto replies = Parse(bytes, 1);
  ASSERT_TRUE(replies.ok());
  ASSERT_EQ(replies->size(), 1U);
  EXPECT_EQ((*replies)[0].Text(), "az[31mzzz ?");
  EXPECT_EQ(Printable("\xFF \xC2\x85 \xE2\x80\xAE"
                      "f \xC3\xA4\r\n250 x",
                      100),
            "?  f \xC3\xA4"
            "250 x");
  EXPECT_EQ(Printable("\xC3\xA4\xC3\xA4", 3), "\xC3\xA4");
  EXPECT_EQ(Printable("\xC0\x80\xED\xA0\x80", 100), "?????");
  Reply large;
  large.code = 550;
  large.lines.assign(50, std::string(100, 'x'));
  EXPECT_LE(large.Text().size(), kMaxReplyText);
}

TEST(Capabilities, AreTakenFromTheReplyToEhlo) {
  Reply reply;
  reply.code = 250;
  reply.lines = {"STARTTLS greets",
                 "size 35882577",
                 "8BITMIME",
                 "PIPELINING",
                 "starttls",
                 "AUTH PLAIN login",
                 "AUTH=XOAUTH2",
                 "SMTPUTF8",
                 "CHUNKING",
                 "DSN",
                 "",
                 "ENHANCEDSTATUSCODES",
                 "LIMITS MAILMAX=5 RCPTMAX=100 X",
                 "X-UNKNOWN a b",
                 " SIZE"};
  const Capabilities c = ParseCapabilities(reply);
  EXPECT_TRUE(c.esmtp && c.start_tls && c.pipelining && c.eight_bit_mime && c.smtp_utf8 && c.chunking && c.dsn &&
              c.enhanced_status_codes && c.size);
  EXPECT_EQ(c.max_size, 35882577U);
  EXPECT_EQ(c.auth, (std::set<std::string>{"PLAIN", "LOGIN", "XOAUTH2"}));
  EXPECT_EQ(c.max_recipients, 100U);
  EXPECT_EQ(c.max_mails, 5U);
  reply.lines = {"STARTTLS", "SIZE -5", "SIZE 99999999999999999999999", "LIMITS RCPTMAX=x", "AUTH", "AUTHX PLAIN"};
  const Capabilities none = ParseCapabilities(reply);
  EXPECT_FALSE(none.start_tls);  // the first line greets
  EXPECT_EQ(none.max_size, 0U);
  EXPECT_EQ(none.max_recipients, 0U);
  EXPECT_TRUE(none.auth.empty());
}

TEST(Failure, ComesBackOutOfAStatus) {
  Reply reply;
  reply.code = 451;
  reply.enhanced = "4.3.2";
  reply.lines = {"later", "please"};
  const Failure failure = GetFailure(MakeError(Step::kRcpt, ErrorKind::kRefused, "refused", false, reply));
  EXPECT_EQ(failure.step, Step::kRcpt);
  EXPECT_EQ(failure.kind, ErrorKind::kRefused);
  EXPECT_TRUE(failure.temporary);
  EXPECT_EQ(failure.reply.Quoted(), "451 4.3.2 \"later please\"");
  const absl::Status expired = AtStep(Step::kTls, net::MakeNetError(net::NetError::kCertificateExpired, "expired"));
  EXPECT_EQ(GetFailure(expired).kind, ErrorKind::kNetwork);
  EXPECT_FALSE(GetFailure(expired).temporary);
  EXPECT_EQ(net::GetNetError(expired), net::NetError::kCertificateExpired);
  EXPECT_EQ(GetFailure(AtStep(Step::kConnect, expired)).step, Step::kTls);  // the first step stays
  EXPECT_TRUE(GetFailure(AtStep(Step::kConnect, net::MakeNetError(net::NetError::kTimeout, "x"))).temporary);
  EXPECT_EQ(GetFailure(absl::InternalError("x")).kind, ErrorKind::kNone);
}

}  // namespace
}  // namespace poststelle::smtp
