#include "libs/redis/protocol.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "libs/redis/script_hashes.h"

namespace poststelle::redis {
namespace {

TEST(ProtocolTest, AnAnswerIsReadByteByByte) {
  const std::string text = std::string("*4\r\n$5\r\na\r\nb\0\r\n:-7\r\n$-1\r\n*2\r\n+OK\r\n*0\r\n:1\r\n", 42);
  AnswerReader reader;
  std::vector<Answer> answers;
  for (const char c : text) {
    reader.Feed(std::string_view(&c, 1));
    auto answer = reader.Next();
    ASSERT_TRUE(answer.ok()) << answer.status();
    if (*answer) answers.push_back(**std::move(answer));
  }
  ASSERT_EQ(answers.size(), 2u);
  const Reply& first = answers[0].reply;
  ASSERT_EQ(first.array.size(), 4u);
  EXPECT_EQ(first.array[0].string, std::string("a\r\nb\0", 5));
  EXPECT_EQ(first.array[1].integer, -7);
  EXPECT_EQ(first.array[2].kind, Reply::Kind::kNil);
  EXPECT_EQ(first.array[3].array[0].string, "OK");
  EXPECT_EQ(first.array[3].array[1].kind, Reply::Kind::kArray);
  EXPECT_EQ(answers[1].reply.integer, 1);
}

TEST(ProtocolTest, AnErrorInAnArrayIsTheAnswersAndNotTheNextOnes) {
  AnswerReader reader;
  reader.Feed("*2\r\n:1\r\n-ERR within\r\n:5\r\n");
  EXPECT_EQ(reader.Next().value().value().error, "ERR within");
  const Answer next = reader.Next().value().value();
  EXPECT_TRUE(next.error.empty());
  EXPECT_EQ(next.reply.integer, 5);
}

TEST(ProtocolTest, GarbageAndDepthAreRefused) {
  std::string deep;
  for (int i = 0; i < 1000; ++i) deep += "*1\r\n";
  for (const std::string& bytes :
       {std::string("HTTP/1.1 400 Bad Request\r\n"), std::string("$x\r\n"), std::string("*-7\r\n"), deep,
        std::string("*2147483647\r\n"), std::string("*4294967296\r\n"), std::string("\x16\x03\x01\x02", 4)}) {
    AnswerReader reader;
    reader.Feed(bytes);
    EXPECT_TRUE(absl::IsUnavailable(reader.Next().status())) << bytes.substr(0, 20);
  }
}

TEST(ProtocolTest, AnEndlessStringEndsAtTheLimit) {
  AnswerReader reader;
  reader.Feed("$4294967295\r\n");
  const std::string chunk(1 << 20, 'x');
  absl::Status status;
  size_t fed = 0;
  while (status.ok() && fed < 4 * AnswerReader::kMaxBytes) {
    reader.Feed(chunk);
    fed += chunk.size();
    status = reader.Next().status();
  }
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_LE(fed, AnswerReader::kMaxBytes + chunk.size());
}

TEST(ProtocolTest, ManyElementsOfManyArraysEndAtTheLimit) {
  AnswerReader reader;
  reader.Feed("*1000\r\n");
  absl::Status status;
  for (int i = 0; i < 1000 && status.ok(); ++i) {
    reader.Feed("*1000\r\n");
    for (int j = 0; j < 1000; ++j) reader.Feed(":1\r\n");
    status = reader.Next().status();
  }
  EXPECT_NE(std::string(status.message()).find("elements"), std::string::npos) << status;
}

TEST(ProtocolTest, ManyAnswersDoNotAddUp) {
  AnswerReader reader;
  const std::string answer = absl::StrCat("$", 1 << 20, "\r\n", std::string(1 << 20, 'x'), "\r\n");
  for (int i = 0; i < 40; ++i) {
    reader.Feed(answer);
    ASSERT_TRUE(reader.Next().value().has_value());
    ASSERT_FALSE(reader.Next().value().has_value());
  }
}

TEST(ProtocolTest, CodesOfErrors) {
  EXPECT_EQ(ErrorCode("MOVED 1 h:2"), "MOVED");
  EXPECT_EQ(ErrorCode("ERR Error running script (call to f_12): @user_script:1: -OOM command not allowed"), "OOM");
  EXPECT_EQ(ErrorCode("ERR Error running script (call to f_12): @user_script:1: oops - no"), "ERR");
  EXPECT_EQ(ErrorCode(""), "");
  const auto code = [](const char* error) { return ToResult(Answer{{}, error}).status().code(); };
  EXPECT_EQ(code("NOSCRIPT No matching script"), absl::StatusCode::kNotFound);
  EXPECT_EQ(code("WRONGPASS invalid"), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(code("BUSYGROUP exists"), absl::StatusCode::kInternal);
  for (const char* passing :
       {"LOADING l", "READONLY r", "OOM o", "BUSY b", "MISCONF m", "CLUSTERDOWN c", "TRYAGAIN t"}) {
    EXPECT_EQ(code(passing), absl::StatusCode::kUnavailable) << passing;
  }
}

TEST(ProtocolTest, HashesOfScriptsAreRedis) {
  ScriptHashes hashes;
  EXPECT_EQ(hashes.Of("return 1"), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
  EXPECT_EQ(hashes.Of("return 1"), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
  for (size_t i = 0; i <= ScriptHashes::kMaxScripts; ++i) hashes.Of(std::to_string(i));
  EXPECT_EQ(hashes.Of("return redis.call('PING')").size(), 40u);
}

}  // namespace
}  // namespace poststelle::redis
