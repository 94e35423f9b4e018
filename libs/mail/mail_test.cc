#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/escaping.h"
#include "libs/base/ids.h"
#include "libs/mail/base64.h"
#include "libs/mail/charset.h"
#include "libs/mail/digest.h"
#include "libs/mail/mime.h"
#include "libs/mail/scan.h"

namespace poststelle::mail {
namespace {

class MailTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { InitMime(); }
};

TEST_F(MailTest, CharsetsByLabelByTruthAndByDetection) {
  EXPECT_EQ(ToUtf8("Gr\xfc\xdf"
                   "e",
                   "iso-8859-1"),
            "Grüße");
  EXPECT_EQ(ToUtf8("\x80 5", "latin1"), "€ 5");
  EXPECT_EQ(ToUtf8("\xa4", "iso-8859-15"), "€");
  EXPECT_EQ(ToUtf8("Grüße", "us-ascii"), "Grüße");
  EXPECT_EQ(ToUtf8(std::string("a\0b", 3), "utf-8"),
            "a\xEF\xBF\xBD"
            "b");
  EXPECT_TRUE(
      IsValidUtf8(ToUtf8("Gr\xfc\xdf"
                         "e an alle",
                         "utf-8")));
  EXPECT_TRUE(IsValidUtf8(ToUtf8("\xff\xfe\x81", "x-unknown")));
}

TEST_F(MailTest, EncodedWordsEvenSplitInsideACharacter) {
  EXPECT_EQ(DecodeHeader("=?utf-8?Q?Gr=C3=BC=C3?= =?utf-8?Q?=9Fe?= aus"), "Grüße aus");
  EXPECT_EQ(DecodeHeader("=?iso-8859-1?b?R3L832U=?="), "Grüße");
  EXPECT_EQ(DecodeHeader("no =? word"), "no =? word");
  EXPECT_EQ(DecodeHeader("=?utf-8?Q?a?= b =?utf-8?Q?c?="), "a b c");
}

TEST_F(MailTest, APlainMail) {
  const ParsedMail mail = ParseMail(
      "From: =?utf-8?q?J=C3=B6rg?= <joerg@example.org>\r\nTo: a@example.org, B <b@example.org>\r\nSubject: Hallo\r\n"
      "Message-ID: <1@x>\r\nIn-Reply-To: <0@x>\r\nReferences: <r@x> <0@x>\r\nDate: Tue, 24 Nov 2026 10:00:00 +0100\r\n"
      "Content-Type: text/plain; charset=iso-8859-1\r\n\r\nGr\xfc\xdf"
      "e\r\n");
  EXPECT_EQ(mail.from(0).name(), "Jörg");
  EXPECT_EQ(mail.from(0).address(), "joerg@example.org");
  EXPECT_EQ(mail.to_size(), 2);
  EXPECT_EQ(mail.message_id(), "1@x");
  EXPECT_EQ(mail.references_size(), 2);
  EXPECT_EQ(mail.date_unix(), 1795510800);
  EXPECT_EQ(mail.text(), "Grüße\r\n");
  EXPECT_FALSE(mail.undecodable());
}

TEST_F(MailTest, HtmlWithAnAttachment) {
  const ParsedMail mail = ParseMail(
      "From: a@example.org\nSubject: x\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n"
      "Content-Type: text/html; charset=utf-8\n\n<b>Hi</b>\n--b\nContent-Type: application/pdf\n"
      "Content-Disposition: attachment; filename=\"../../etc/a\xE2\x80\xAE.pdf\"\nContent-Transfer-Encoding: "
      "base64\n\nYWJj\n--b--\n");
  EXPECT_EQ(mail.html(), "<b>Hi</b>");
  ASSERT_EQ(mail.attachments_size(), 1);
  EXPECT_EQ(mail.attachments(0).filename(), "a.pdf");
  EXPECT_EQ(mail.attachments(0).size(), 3u);
}

std::string Repeat(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

TEST_F(MailTest, WhatGMimeCantBearIsUndecodableWithItsHeaders) {
  const std::string head = "From: a@example.org\nSubject: Help\nMessage-ID: <1@x>\n";
  const std::string loop = head + "Content-Type: multipart/mixed;\xc3\xa4\xc3\xb6=1; boundary=x\n\n--x\n\n--x--\n";
  const std::string deep = head + Repeat("Content-Type: multipart/mixed; boundary=b\n\n--b\n", 100'000);
  const std::string many_headers = head + Repeat("X: y\n", 200'000) + "\nx\n";
  const std::string long_header = head + "X: " + std::string(50 << 20, 'x') + "\n\nx\n";
  const std::string parts = head + "Content-Type: multipart/mixed; boundary=b\n\n" + Repeat("--b\n\nx\n", 1'000'000);
  for (const std::string* raw : {&loop, &deep, &many_headers, &long_header, &parts}) {
    const ParsedMail mail = ParseMail(*raw);
    EXPECT_TRUE(mail.undecodable()) << raw->substr(0, 120);
    EXPECT_FALSE(mail.undecodable_reason().empty());
    EXPECT_EQ(mail.from(0).address(), "a@example.org");
    EXPECT_EQ(mail.subject(), "Help");
    EXPECT_EQ(mail.message_id(), "1@x");
  }
}

TEST_F(MailTest, EveryCutOfAMailIsReadWithoutACrash) {
  const std::string raw =
      "From: \"A\" <a@example.org>\r\nSubject: =?utf-8?Q?=C3?=\r\nContent-Type: multipart/alternative; "
      "boundary=\"b\"\r\n\r\n--b\r\n"
      "Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\na=\r\n--b\r\nContent-Type: "
      "text/html\r\n\r\n"
      "<p>\r\n--b--\r\n";
  for (size_t i = 0; i <= raw.size(); ++i) EXPECT_TRUE(IsValidUtf8(ParseMail(raw.substr(0, i)).text()));
}

TEST_F(MailTest, TheDigestIgnoresTraceHeadersAndLineEndsOnly) {
  const std::string mail = "From: a@example.org\nSubject: x\n\nbody\n";
  EXPECT_EQ(Digest("Received: by a\n\tfor b\nDelivered-To: c\n" + mail), Digest(mail));
  EXPECT_EQ(Digest("From: a@example.org\r\nSubject: x\r\n\r\nbody\r\n"), Digest(mail));
  EXPECT_NE(Digest("X-Priority: 1\n" + mail), Digest(mail));
  EXPECT_NE(Digest("From: a@example.org\nSubject: x\n\nReceived: body\n"),
            Digest("From: a@example.org\nSubject: x\n\n"));
}

TEST(Base64, OnlyWhatIsRegularIsDecodedHere) {
  auto decode = [](std::string_view encoded) {
    std::string out = "x";
    return DecodeRegularBase64(encoded, out) ? out : out + "?";
  };
  EXPECT_EQ(decode(""), "x");
  EXPECT_EQ(decode("YWJj"), "xabc");
  EXPECT_EQ(decode("YWJjZA=="), "xabcd");
  EXPECT_EQ(decode("YWJjZGU=\r\n\r\n "), "xabcde");
  EXPECT_EQ(decode("YW\r\nJj\r\nZ\nA =\t="), "xabcd");
  EXPECT_EQ(decode("+/+/"), "x\xFB\xFF\xBF");
  for (const char* irregular : {"YWJ", "YWJjZ", "YWJjZA", "YWJjZA=", "YW=j", "YQ==YQ==", "YQ===", "Y===", "====", "=",
                                "YW!j", "YWJj--", "YWJjZA==x", "\xFF\xFF\xFF\xFF"}) {
    EXPECT_EQ(decode(irregular), "x?") << irregular;
  }
}

TEST_F(MailTest, BothWaysOfDecodingBase64Agree) {
  std::string bytes;
  for (int i = 0; i < 3000; ++i) bytes.push_back(static_cast<char>(i * i * 31 + i / 7));
  for (size_t size : {0, 1, 2, 3, 56, 57, 58, 171, 3000}) {
    for (const char* end : {"\r\n", "\n"}) {
      std::string lines;
      const std::string encoded = absl::Base64Escape(bytes.substr(0, size));
      const size_t letters = size % 3 == 0 ? 76 : 60;
      for (size_t at = 0; at < encoded.size(); at += letters) lines += encoded.substr(at, letters) + end;
      const std::string head =
          std::string("Content-Type: application/x") + end + "Content-Transfer-Encoding: base64" + end + end;
      std::string ours;
      ASSERT_TRUE(DecodeRegularBase64(lines, ours));
      EXPECT_EQ(ours, bytes.substr(0, size));
      const std::string regular = ParseMail(head + lines).attachments(0).sha256();
      // A letter that is none makes it GMime's, which passes over it.
      const std::string mended = ParseMail(head + "!" + lines).attachments(0).sha256();
      EXPECT_EQ(regular, Hex(Sha256(bytes.substr(0, size)))) << size;
      EXPECT_EQ(mended, regular) << size;
      // And in the middle of a line among others.
      if (size < 3000) continue;
      std::string spoiled = lines;
      spoiled.insert(1000, "!");
      EXPECT_FALSE(DecodeRegularBase64(spoiled, ours));
      EXPECT_EQ(ours, bytes.substr(0, size));
      std::string uneven = lines;
      uneven.insert(1000, end);
      ours.clear();
      ASSERT_TRUE(DecodeRegularBase64(uneven, ours));
      EXPECT_EQ(ours, bytes.substr(0, size));
    }
  }
}

// It is stored: what it is made of must never change. SHA-256 over the lines, each with LF.
TEST(Digest, IsTheHashOfTheLinesHoweverLongTheyAre) {
  std::string mail = "From: a@example.org\n\n";
  for (size_t length : {0, 1, 76, 16'382, 16'383, 16'384, 16'385, 50'000}) {
    for (int i = 0; i < 3; ++i) mail += std::string(length, static_cast<char>('a' + i)) + "\n";
  }
  std::string with_cr;
  for (char c : mail) with_cr += c == '\n' ? std::string("\r\n") : std::string(1, c);
  EXPECT_EQ(Digest(mail), Sha256(mail));
  EXPECT_EQ(Digest(with_cr), Sha256(mail));
}

TEST_F(MailTest, TheAnchorIsTheSameFromThreeFieldsAsFromTheWholeBlock) {
  const std::string whole =
      "Received: x\r\nfrom: A\r\n <a@example.org>\r\nDate: today\r\nSubject: s\r\nMessage-Id: <1@x>\r\n\r\n";
  const std::string fields = "Message-Id: <1@x>\r\nfrom: A\r\n <a@example.org>\r\nDate: today\r\n\r\n";
  EXPECT_EQ(AnchorFromHeaders(whole, 5, 7), AnchorFromHeaders(fields, 5, 7));
  EXPECT_NE(AnchorFromHeaders(whole, 5, 7), AnchorFromHeaders(fields, 6, 7));
}

TEST_F(MailTest, ABadByteCostsOnlyItselfInUtf8) {
  EXPECT_EQ(ToUtf8("Grüße\xff aus Köln", "utf-8"), "Grüße\xEF\xBF\xBD aus Köln");
  // Cut inside its last character: one replacement for what is left of it.
  EXPECT_EQ(ToUtf8("Grüße für 5 \xe2\x82", "UTF-8"), "Grüße für 5 \xEF\xBF\xBD");
  EXPECT_EQ(ToUtf8("Stra\xc3", "utf8"), "Stra\xEF\xBF\xBD");
  // Without a label, or with a wrong one, the majority decides.
  EXPECT_EQ(ToUtf8("Grüße \xff Köln", ""), "Grüße \xEF\xBF\xBD Köln");
  EXPECT_EQ(ToUtf8("Grüße \xff Köln", "iso-8859-1"), "Grüße \xEF\xBF\xBD Köln");
  EXPECT_EQ(ToUtf8("Gr\xfc\xdf"
                   "e aus K\xf6ln",
                   "iso-8859-1"),
            "Grüße aus Köln");
  // Terminal colours are no shift into another charset.
  EXPECT_EQ(ToUtf8("\x1b[1mGrüße\x1b[0m", "utf-8"), "\x1b[1mGrüße\x1b[0m");
  const ParsedMail mail =
      ParseMail("Subject: x\nContent-Type: text/plain; charset=utf-8\n\nSchöne Grüße\xe9 aus Köln\n");
  EXPECT_EQ(mail.text(), "Schöne Grüße\xEF\xBF\xBD aus Köln\n");
}

TEST_F(MailTest, LabelsAreReadInTheirManySpellings) {
  for (const char* label : {"windows-1251", "CP1251", "x-cp1251", "\"Windows-1251\"", "win1251"}) {
    EXPECT_EQ(ToUtf8("\xcf\xf0\xe8\xe2\xe5\xf2", label), "Привет") << label;
  }
  for (const char* label : {"iso-8859-2", "ISO_8859-2:1987", "latin2", "csISOLatin2", "l2"}) {
    EXPECT_EQ(ToUtf8("\xb1", label), "ą") << label;
  }
  EXPECT_EQ(ToUtf8("\x1b$B$3\x1b(B", "iso-2022-jp"), "こ");
  EXPECT_EQ(ToUtf8("\xc4\xe3\xba\xc3", "GB2312"), "你好");
}

TEST_F(MailTest, AnAddressFieldOfManyColonsIsNotGivenToGMime) {
  const std::string head = "From: a@example.org\nSubject: Help\nMessage-ID: <1@x>\n";
  // A quote inside of a comment, a quote that is never closed, a comment inside of quotes: none of them hides a group.
  for (const char* start : {"( \" ) ", "\" ", "\"(\" ", "(", "(\\\") "}) {
    const std::string field = start + Repeat("a:", 100'000) + "\n";
    const ParsedMail mail = ParseMail(head + "To: " + field + "Cc: c@example.org\n\ntext\n");
    EXPECT_FALSE(mail.undecodable()) << mail.undecodable_reason();
    EXPECT_EQ(mail.subject(), "Help");
    EXPECT_EQ(mail.from(0).address(), "a@example.org");
    EXPECT_EQ(mail.cc(0).address(), "c@example.org");
    EXPECT_EQ(mail.text(), "text\n");
    // Inside of an attached mail the field can't be left out without changing the attachment.
    for (const std::string& padding : {std::string(), Repeat("x\n ", 700'000)}) {
      const std::string attached =
          head + "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\nSubject: y\nTo: " +
          padding + field + "\ny\n--b--\n";
      EXPECT_TRUE(ParseMail(attached).undecodable());
    }
    EXPECT_EQ(ParseMail("\nTo: " + field + "\ntext\n").subject(), "");
  }
  // What only looks like a field, in the text of a mail, harms nobody.
  EXPECT_FALSE(ParseMail(head + "\nTo: " + Repeat("a:", 1000) + "\n").undecodable());
}

TEST_F(MailTest, CommentsOfContentTypeMayHoldAnyByte) {
  for (const char* type :
       {"text/plain; (f\xc3\xbcr alle) charset=utf-8", "text/plain (f\xfcr) ; charset=utf-8",
        "text/plain; charset=utf-8 (f\xfcr; m\xfc=1)", "text/plain; charset=\"utf-8\"; (\xfc(\xfc))"}) {
    const ParsedMail mail = ParseMail(std::string("Subject: x\nContent-Type: ") + type + "\n\nGrüße\n");
    EXPECT_FALSE(mail.undecodable()) << type;
    EXPECT_EQ(mail.text(), "Grüße\n") << type;
  }
  // A comment that is never closed hides nothing.
  EXPECT_TRUE(ParseMail("Subject: x\nContent-Type: text/plain; (\xc3\xa4=1; charset=utf-8\n\nx\n").undecodable());
}

TEST_F(MailTest, EncodedWordsWithoutPaddingKeepTheirLastByte) {
  EXPECT_EQ(DecodeHeader("=?utf-8?b?SsO8cmc?="), "Jürg");
  EXPECT_EQ(DecodeHeader("=?utf-8?b?SsO8cg?="), "Jür");
  EXPECT_EQ(DecodeHeader("=?utf-8?b?SsO8cg==bQ==?="), "Jürm");
  const ParsedMail mail = ParseMail("From: =?utf-8?b?SsO8cmc?= <j@x.de>\nTo: =?utf-8?B?SsO8cg?= <k@x.de>\n\nx\n");
  EXPECT_EQ(mail.from(0).name(), "Jürg");
  EXPECT_EQ(mail.to(0).name(), "Jür");
}

TEST_F(MailTest, EveryReferencesFieldIsRead) {
  const ParsedMail mail = ParseMail(
      "Message-ID: <m@x>\nReferences: <1@x>\n <2@\n x>\nIn-Reply-To: <8@x>\nReferences: <2@x> <3@x>\nIn-Reply-To: "
      "<9@x>\n\nx\n");
  EXPECT_THAT(mail.references(), ::testing::ElementsAre("1@x", "2@x", "3@x"));
  EXPECT_THAT(mail.in_reply_to(), ::testing::ElementsAre("8@x", "9@x"));
}

TEST_F(MailTest, AddressesWithoutAngleBrackets) {
  const ParsedMail mail = ParseMail(
      "From: =?utf-8?q?J=C3=BCrg?= j@x.de\nTo: Joe Bar j@x.de, b@x.de, \"Doe, J\" d@x.de,\n e@x.de (Eve), F <f@x.de>\n"
      "Cc: Team: G g@x.de, h@x.de;, i@x.de\n\nx\n");
  auto flat = [](const google::protobuf::RepeatedPtrField<Address>& list) {
    std::string out;
    for (const Address& a : list) out += a.name() + "|" + a.address() + "\n";
    return out;
  };
  EXPECT_EQ(flat(mail.from()), "Jürg|j@x.de\n");
  EXPECT_EQ(flat(mail.to()), "Joe Bar|j@x.de\n|b@x.de\nDoe, J|d@x.de\nEve|e@x.de\nF|f@x.de\n");
  EXPECT_EQ(flat(mail.cc()), "G|g@x.de\n|h@x.de\n|i@x.de\n");
  EXPECT_EQ(flat(ScanHeaders("From: =?utf-8?q?J=C3=BCrg?= j@x.de\n\n").from()), "Jürg|j@x.de\n");
}

TEST_F(MailTest, APartOfUnknownTypeKeepsItsName) {
  const ParsedMail mail = ParseMail(
      "Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: unknown; name=\"a.pdf\"\n\nabc\n"
      "--b\nContent-Type: unknown; name*=utf-8''%C3%BC.pdf\n\nabc\n--b--\n");
  ASSERT_EQ(mail.attachments_size(), 2);
  EXPECT_EQ(mail.attachments(0).filename(), "a.pdf");
  EXPECT_EQ(mail.attachments(1).filename(), "ü.pdf");
}

TEST_F(MailTest, DatesOfIso8601) {
  for (const char* text : {"2024-05-01 10:00:00 +0200", "2024-05-01T08:00:00Z", "2024-05-01T10:00:00+02:00",
                           "2024-05-01T08:00:00.123Z", "2024-05-01 08:00:00", "2024-05-01 08:00 UTC",
                           "2024-05-01 10:00:00 +0200 (CEST)", "Wed, 1 May 2024 10:00:00 +0200"}) {
    int64_t seconds = 0;
    EXPECT_TRUE(ParseDate(text, seconds)) << text;
    EXPECT_EQ(seconds, 1714550400) << text;
  }
  int64_t seconds = 0;
  EXPECT_FALSE(ParseDate("2024-13-01 10:00:00 +0200", seconds));
  EXPECT_FALSE(ParseDate("2024-05", seconds));
}

TEST_F(MailTest, AMailWithoutABodyIsAMail) {
  for (const char* raw : {"", "\n", "\r\n", "Subject: x", "Subject: x\n", "Subject: x\r\n\r\n", "From a@b Tue\n"}) {
    const ParsedMail mail = ParseMail(raw);
    EXPECT_FALSE(mail.undecodable()) << raw;
    EXPECT_EQ(mail.subject(), std::string_view(raw).starts_with("Subject") ? "x" : "");
    EXPECT_EQ(mail.text(), "");
  }
}

TEST_F(MailTest, LinesThatEndWithABareCr) {
  const ParsedMail mail = ParseMail("From: a@x.de\rSubject: Hello\r you\rContent-Type: text/plain\r\rone\rtwo\r");
  EXPECT_EQ(mail.subject(), "Hello you");
  EXPECT_EQ(mail.from(0).address(), "a@x.de");
  EXPECT_EQ(mail.text(), "one\ntwo\n");
  EXPECT_EQ(ScanHeaders("From: a@x.de\rSubject: Hello").subject(), "Hello");
  EXPECT_EQ(ParseMail("Subject: a\r\n\r\none\rtwo\r\rthree\r\n").text(), "one\rtwo\r\rthree\r\n");
}

}  // namespace
}  // namespace poststelle::mail
