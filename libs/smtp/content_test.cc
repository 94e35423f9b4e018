#include "libs/smtp/content.h"

#include <gtest/gtest.h>

#include "libs/smtp/address.h"
#include "libs/smtp/error.h"

namespace poststelle::smtp {
namespace {

TEST(Content, ItsNeedsAreSeen) {
  const ContentTraits plain = ScanContent("A: b\r\n\r\ntext\r\n");
  EXPECT_TRUE(plain.canonical);
  EXPECT_FALSE(plain.eight_bit || plain.eight_bit_header || plain.nul);
  EXPECT_EQ(plain.longest_line, 4U);
  const ContentTraits body = ScanContent("A: b\r\n\r\nt\xC3\xA4xt\r\n");
  EXPECT_TRUE(body.eight_bit);
  EXPECT_FALSE(body.eight_bit_header);
  EXPECT_TRUE(ScanContent("A: \xC3\xA4\r\n\r\n").eight_bit_header);
  EXPECT_TRUE(ScanContent(std::string_view("a\0b\r\n", 5)).nul);
  for (const char* other : {"a\nb\r\n", "a\rb\r\n", "a\r\r\n", "a", "a\r", "\n", "a\r\n\n"}) {
    EXPECT_FALSE(ScanContent(other).canonical) << other;
  }
  EXPECT_TRUE(ScanContent("").canonical);
}

TEST(Content, WhatCantBeCarriedIsRefused) {
  EXPECT_TRUE(CheckContent(ScanContent(std::string(998, 'x') + "\r\n")).ok());
  EXPECT_EQ(GetFailure(CheckContent(ScanContent(std::string(999, 'x') + "\r\n"))).kind, ErrorKind::kUnfit);
  EXPECT_EQ(GetFailure(CheckContent(ScanContent(std::string_view("\0", 1)))).kind, ErrorKind::kUnfit);
}

TEST(Content, LineEndsHaveOneForm) {
  const std::pair<std::string, std::string> cases[] = {
      {"", ""},
      {"a", "a\r\n"},
      {"a\nb\rc\r\nd", "a\r\nb\r\nc\r\nd\r\n"},
      {"\n.\n", "\r\n.\r\n"},
      {"\r.\r", "\r\n.\r\n"},
      {"\r\r\n", "\r\n\r\n"},
      {"\n\r\n", "\r\n\r\n"},
      {"a\r\n\r\n", "a\r\n\r\n"},
  };
  for (const auto& [from, to] : cases) {
    EXPECT_EQ(Canonical(from), to);
    EXPECT_EQ(Canonical(to), to);
    EXPECT_TRUE(ScanContent(to).canonical);
  }
}

TEST(Content, DotsAreDoubledWhereverThePiecesEnd) {
  const std::string message = ".a\r\n..\r\n.\r\nb.c\r\n\r\n.\r\n.";
  const std::string stuffed = "..a\r\n...\r\n..\r\nb.c\r\n\r\n..\r\n..";
  for (size_t first = 0; first <= message.size(); ++first) {
    for (size_t second = first; second <= message.size(); ++second) {
      std::string out;
      AppendDotStuffed(message, 0, first, out);
      AppendDotStuffed(message, first, second, out);
      AppendDotStuffed(message, second, message.size(), out);
      ASSERT_EQ(out, stuffed) << first << " " << second;
    }
  }
}

TEST(Content, NoSmugglingLeavesUs) {
  // Every sequence that some server takes for the end of a message.
  for (const char* end :
       {"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r\n.\r\n", "\n.\r", "\r.\n"}) {
    const std::string message = Canonical(std::string("a") + end + "MAIL FROM:<evil@x>\r\n");
    std::string out;
    AppendDotStuffed(message, 0, message.size(), out);
    EXPECT_EQ(out, "a\r\n..\r\nMAIL FROM:<evil@x>\r\n");
  }
}

TEST(Address, WhatCouldEndAPathIsRefused) {
  for (const char* good : {"", "a@b", "joe.doe+tag@example.com", "\"john smith\"@example.com", "\"a\\\"b\"@example.com",
                           "\"a@b\"@example.com", "j\xC3\xB6rg@example.com", "x@[127.0.0.1]"}) {
    auto address = Address::Make(good);
    ASSERT_TRUE(address.ok()) << address.status();
    EXPECT_EQ(address->text(), good);
  }
  EXPECT_FALSE(Address::Make("j\xC3\xB6rg@example.com")->ascii());
  const std::string bad[] = {"a@b\r\nRCPT TO:<x@y>",
                             "a\n@b",
                             "a\r@b",
                             std::string("a\0@b", 4),
                             "a@b> SIZE=1",
                             "<a@b>",
                             "a b@c",
                             "a@b c",
                             "\"a@b",
                             "a",
                             "@b",
                             "a@",
                             "\"a\r\n\"@b",
                             "\"a\\\r\n\"@b",
                             "\"a\\",
                             "a\x7F@b",
                             "a\xC2\x85@b",
                             "a\xFF@b",
                             "\"a>b\"@c",
                             "\"a@b\"",
                             std::string(600, 'a') + "@b"};
  for (const std::string& text : bad) {
    EXPECT_EQ(GetFailure(Address::Make(text).status()).kind, ErrorKind::kUnfit) << text;
  }
}

}  // namespace
}  // namespace poststelle::smtp
