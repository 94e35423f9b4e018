#include "services/sender/test_message.h"

#include <gtest/gtest.h>

#include "libs/smtp/content.h"

namespace poststelle::sender {
namespace {

TEST(TestMessageTest, SaysThatAMachineWroteItAndWhatItIs) {
  const std::string mail = TestMessage("me@example.org", "you@example.org", "Support",
                                       absl::FromUnixSeconds(1'700'000'000), "id@example.org");
  EXPECT_NE(mail.find("\r\nSubject: Poststelle: Testnachricht / test message\r\n"), std::string::npos);
  EXPECT_NE(mail.find("\r\nAuto-Submitted: auto-generated\r\n"), std::string::npos);
  EXPECT_NE(mail.find("\r\nMessage-ID: <id@example.org>\r\n"), std::string::npos);
  EXPECT_NE(mail.find("\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\n"), std::string::npos);
  const smtp::ContentTraits traits = smtp::ScanContent(mail);
  EXPECT_TRUE(traits.canonical);
  EXPECT_FALSE(traits.eight_bit_header);
  EXPECT_LE(traits.longest_line, 998u);
}

TEST(TestMessageTest, ANameThatHoldsLinesStaysInItsLine) {
  const std::string mail =
      TestMessage("me@example.org", "you@example.org", "a\r\n.\r\nb", absl::FromUnixSeconds(0), "id@example.org");
  EXPECT_NE(mail.find("mailbox: a.b <"), std::string::npos);
}

}  // namespace
}  // namespace poststelle::sender
