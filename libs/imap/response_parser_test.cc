#include "libs/imap/response_parser.h"

#include <gtest/gtest.h>

#include <random>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "libs/imap/error.h"
#include "libs/imap/quote.h"

namespace poststelle::imap {
namespace {

// Writes down what it hears.
class Recorder : public ResponseHandler {
 public:
  absl::Status OnResponse(Response r) override {
    absl::StrAppend(&log, r.kind == Response::Kind::kTagged ? r.tag : "*", " ", r.number, " ", r.name, " [", r.code,
                    " ", r.code_value, "] ", r.text, " uid=", r.fetch.uid.value_or(0),
                    " size=", r.fetch.size.value_or(0), " date=", r.fetch.internal_date.value_or(0),
                    r.fetch.seen ? " seen" : "", " header=", r.fetch.header.value_or("-"), " found=", r.numbers.size(),
                    "\n");
    return absl::OkStatus();
  }
  absl::Status OnBodyBegin(uint32_t uid, uint64_t size) override {
    absl::StrAppend(&log, "body ", uid, " ", size, ":");
    return absl::OkStatus();
  }
  absl::Status OnBodyBytes(std::string_view bytes) override {
    log.append(bytes);
    return absl::OkStatus();
  }
  absl::Status OnBodyEnd() override {
    log += "|end\n";
    return absl::OkStatus();
  }
  std::string log;
};

const std::string kTranscript =
    "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] Dovecot ready.\r\n"
    "* FLAGS (\\Answered \\Seen)\r\n* 3 EXISTS\r\n* OK [UIDVALIDITY 1700000000] UIDs valid\r\n* OK [UIDNEXT 9] next\r\n"
    "c1 OK [READ-ONLY] Examine completed.\r\n"
    "* 1 FETCH (UID 5 FLAGS (\\Seen $X) INTERNALDATE \"17-Jul-1996 02:44:25 -0700\" RFC822.SIZE 4286)\r\n"
    "* 2 FETCH (FLAGS () UID 6 RFC822.SIZE 10 INTERNALDATE \" 1-Jan-2020 00:00:00 +0000\" "
    "BODY[HEADER.FIELDS (DATE FROM)] {9}\r\nDate: x\r\n)\r\n"
    "* 2 EXPUNGE\r\n* 3 FETCH (FLAGS (\\Deleted))\r\n"
    "* 1 FETCH (UID 5 BODY[] {5}\r\nab\r\nc)\r\n"
    "* 2 FETCH (UID 7 X-UNKNOWN (a (b \"c)\") NIL) BODY[] NIL)\r\n"
    "* 3 FETCH (BODY[] \"quo\\\"ted\" UID 8)\r\n"
    "* 4 FETCH (UID 9 BODY[] ~{2}\r\nxy FLAGS (\\Seen))\r\n"
    "* SEARCH 1 2 3\r\n* SEARCH\r\n+ go on\r\nc2 NO [LIMIT] later\r\n* BYE so long\r\n";

std::string Whole() {
  Recorder recorder;
  ResponseParser parser(recorder, 1000);
  const absl::Status status = parser.Feed(kTranscript);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(parser.at_boundary());
  return recorder.log;
}

TEST(ResponseParser, ReadsATranscript) {
  const std::string log = Whole();
  for (const char* expected :
       {"OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN]", "* 3 EXISTS", "[UIDVALIDITY 1700000000]",
        "c1 0 OK [READ-ONLY ]", "uid=5 size=4286 date=837596665 seen",
        "uid=6 size=10 date=1577836800 header=Date: x\r\n", "body 5 5:ab\r\nc|end", "body 8 7:quo\"ted|end",
        "body 9 2:xy|end", "found=3", "NO [LIMIT ] later", "BYE [ ] so long"}) {
    EXPECT_NE(log.find(expected), std::string::npos) << expected << " in\n" << log;
  }
}

TEST(ResponseParser, OneByteAtATimeIsTheSame) {
  Recorder recorder;
  ResponseParser parser(recorder, 1000);
  for (char c : kTranscript) ASSERT_TRUE(parser.Feed(std::string_view(&c, 1)).ok());
  EXPECT_EQ(recorder.log, Whole());
}

TEST(ResponseParser, CutAfterEveryByteNeverCrashes) {
  for (size_t i = 0; i <= kTranscript.size(); ++i) {
    Recorder recorder;
    ResponseParser parser(recorder, 1000);
    ASSERT_TRUE(parser.Feed(std::string_view(kTranscript).substr(0, i)).ok());
    ASSERT_EQ(Whole().compare(0, std::min<size_t>(recorder.log.size(), 5), recorder.log, 0,
                              std::min<size_t>(recorder.log.size(), 5)),
              0);
  }
}

TEST(ResponseParser, HostileAnswersAreErrorsWithASentence) {
  const std::vector<std::string> hostile = {"* 1 FETCH (UID 5 BODY[] {4294967295}\r\n",
                                            "* 1 FETCH (UID 5 BODY[] {99999999999999999999999}\r\n",
                                            "* " + std::string(kMaxLine + 1, 'x'),
                                            "* SEARCH " + std::string(kMaxSearchLine, '1'),
                                            "* 1 FETCH (X " + std::string(100'000, '(') + "\r\n",
                                            "* 1 FETCH (UID -5)\r\n",
                                            "* 1 FETCH (UID 99999999999)\r\n",
                                            "* 1 FETCH (UID 5\r\n",
                                            "* 1 FETCH (FLAGS (\\Seen\r\n",
                                            "* 1 FETCH (RFC822.SIZE x)\r\n",
                                            "* 1 FETCH (INTERNALDATE \"yesterday\")\r\n",
                                            "* 1 FETCH (BODY[] \"open\r\n",
                                            "* SEARCH 1 x\r\n",
                                            "* 1 FETCH (ENVELOPE {70000}\r\n",
                                            "garbage\r\n",
                                            "\r\n",
                                            "c1 WHAT\r\n"};
  for (const std::string& text : hostile) {
    Recorder recorder;
    ResponseParser parser(recorder, 1 << 20);
    const absl::Status status = parser.Feed(text);
    EXPECT_FALSE(status.ok()) << text.substr(0, 80);
    EXPECT_LT(status.message().size(), 500u);
  }
}

TEST(ResponseParser, AFlagMayHoldABracket) {
  Recorder recorder;
  ResponseParser parser(recorder, 1000);
  ASSERT_TRUE(parser.Feed("* 1 FETCH (FLAGS ([todo \\Seen) UID 5 RFC822.SIZE 7)\r\n").ok());
  EXPECT_NE(recorder.log.find("uid=5 size=7 date=0 seen"), std::string::npos) << recorder.log;
}

TEST(ResponseParser, LongHeadersAreCutAndStopNothing) {
  for (const auto& [item, size, kept] : std::vector<std::tuple<std::string, size_t, size_t>>{
           {"BODY[HEADER]<0>", 256 << 10, kMaxHeader},
           {"BODY[HEADER]", 1 << 20, kMaxHeader},
           {"BODY[HEADER.FIELDS (MESSAGE-ID DATE FROM)]", 1 << 20, kMaxLiteral},
           {"BODY[HEADER.FIELDS (DATE)]", 70'000, kMaxLiteral},
           {"BODY[HEADER.FIELDS (DATE)]", 60'000, 60'000}}) {
    Recorder recorder;
    ResponseParser parser(recorder, 64 << 20);
    const std::string text = absl::StrCat("* 1 FETCH (UID 5 ", item, " {", size, "}\r\n", std::string(size, 'x'),
                                          " RFC822.SIZE 9)\r\n* 2 FETCH (UID 6 RFC822.SIZE 3)\r\n");
    for (size_t i = 0; i < text.size(); i += 5000) {
      const absl::Status fed = parser.Feed(std::string_view(text).substr(i, 5000));
      ASSERT_TRUE(fed.ok()) << item << fed;
    }
    EXPECT_NE(recorder.log.find("uid=5 size=9 date=0 header=" + std::string(kept, 'x') + " "), std::string::npos)
        << item;
    EXPECT_NE(recorder.log.find("uid=6 size=3"), std::string::npos) << item;
  }
}

TEST(ResponseParser, WhoseBodyIsTooLargeIsTold) {
  Recorder recorder;
  ResponseParser parser(recorder, 1000);
  EXPECT_EQ(GetErrorKind(parser.Feed("* 1 FETCH (UID 5 BODY[] {1001}\r\n")), ErrorKind::kTooLarge);
  EXPECT_EQ(recorder.log, "body 5 1001:");
}

TEST(ResponseParser, MutatedTranscriptsNeverCrash) {
  std::mt19937 random(20261124);
  for (int round = 0; round < 20'000; ++round) {
    std::string text = kTranscript;
    const int changes = 1 + static_cast<int>(random() % 8);
    for (int i = 0; i < changes; ++i) {
      const size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, random() % 10);
          break;
        default:
          text.insert(at, std::string(1 + random() % 3, "(){}\"[] \r\n*~9"[random() % 13]));
      }
    }
    Recorder recorder;
    ResponseParser parser(recorder, 1000);
    const absl::Status status = parser.Feed(text);
    if (!status.ok()) EXPECT_FALSE(status.message().empty());
  }
}

TEST(Quote, RefusesWhatCouldEndALine) {
  EXPECT_EQ(*Quote("a\"b\\c"), "\"a\\\"b\\\\c\"");
  for (const char* bad : {"a\rb", "a\nb"}) EXPECT_FALSE(Quote(bad).ok());
  EXPECT_FALSE(Quote(std::string_view("a\0b", 3)).ok());
}

TEST(Quote, FoldersInModifiedUtf7) {
  EXPECT_EQ(*QuoteFolder("INBOX"), "\"INBOX\"");
  EXPECT_EQ(*QuoteFolder("Entwürfe & mehr"), "\"Entw&APw-rfe &- mehr\"");
  EXPECT_EQ(*QuoteFolder("日本語"), "\"&ZeVnLIqe-\"");
  EXPECT_FALSE(QuoteFolder("a\xff").ok());
}

TEST(Quote, SequenceSetsAreShort) {
  EXPECT_EQ(SequenceSets({5, 3, 4, 9, 9}, 10), std::vector<std::string>{"3:5,9"});
  EXPECT_EQ(SequenceSets({1, 3, 5}, 2), (std::vector<std::string>{"1,3", "5"}));
}

}  // namespace
}  // namespace poststelle::imap
