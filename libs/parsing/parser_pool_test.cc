#include "libs/parsing/parser_pool.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <optional>

#include "libs/base/ids.h"

namespace poststelle::parsing {
namespace {

async::Task<void> Into(async::Task<mail::ParsedMail> task, std::optional<mail::ParsedMail>& out) {
  out.emplace(co_await std::move(task));
}

class ParserPoolTest : public ::testing::Test {
 protected:
  ParserPoolTest() { std::filesystem::create_directory(directory_); }
  ~ParserPoolTest() override { std::filesystem::remove_all(directory_); }

  mail::ParsedMail Parse(ParserPool& pool, const std::string& raw) {
    std::optional<mail::ParsedMail> out;
    async::RunBlocking(runtime_.executor(), Into(pool.Parse(raw), out));
    return *out;
  }
  std::string Script(const std::string& body) {
    const std::string path = (directory_ / "parser").string();
    std::ofstream(path) << "#!/bin/sh\n" << body << "\n";
    chmod(path.c_str(), 0755);
    return path;
  }
  ParserPool::Options With(const std::string& binary) {
    ParserPool::Options options;
    options.binary = binary;
    options.wall_limit = absl::Seconds(5);
    return options;
  }

  const std::filesystem::path directory_ = std::filesystem::temp_directory_path() / ("poststelle-parser-" + RandomId());
  async::Runtime runtime_{2};
};

constexpr char kMail[] = "From: a@example.org\nSubject: Hello\nMessage-ID: <1@x>\n\ntext\n";

TEST_F(ParserPoolTest, ManyMailsThroughFewChildren) {
  ParserPool pool(runtime_.executor(), With(PARSER_BINARY));
  for (int i = 0; i < 50; ++i) {
    const mail::ParsedMail mail = Parse(pool, kMail);
    EXPECT_EQ(mail.subject(), "Hello");
    EXPECT_EQ(mail.text(), "text\n");
    EXPECT_FALSE(mail.undecodable());
  }
}

TEST_F(ParserPoolTest, AParserThatDiesLeavesTheHeadersAndTheReason) {
  ParserPool pool(runtime_.executor(), With(Script("kill -SEGV $$")));
  const mail::ParsedMail mail = Parse(pool, kMail);
  EXPECT_TRUE(mail.undecodable());
  EXPECT_EQ(mail.subject(), "Hello");
  EXPECT_NE(mail.undecodable_reason().find("signal 11"), std::string::npos) << mail.undecodable_reason();
}

TEST_F(ParserPoolTest, AParserThatHangsIsEndedAtTheLimit) {
  ParserPool::Options options = With(Script("exec sleep 1000"));
  options.wall_limit = absl::Milliseconds(200);
  ParserPool pool(runtime_.executor(), options);
  const mail::ParsedMail mail = Parse(pool, kMail);
  EXPECT_TRUE(mail.undecodable());
  EXPECT_NE(mail.undecodable_reason().find("exceeded"), std::string::npos);
}

TEST_F(ParserPoolTest, AMissingParserIsNamed) {
  ParserPool pool(runtime_.executor(), With("/nonexistent/parser"));
  EXPECT_NE(Parse(pool, kMail).undecodable_reason().find("/nonexistent/parser"), std::string::npos);
}

#ifndef POSTSTELLE_SANITIZED
TEST_F(ParserPoolTest, AMailThatNeedsMoreMemoryThanAllowedCostsOnlyItself) {
  setenv("POSTSTELLE_PARSER_MEMORY", "200000000", 1);
  ParserPool pool(runtime_.executor(), With(PARSER_BINARY));
  std::string large = kMail;
  large.append(60 << 20, 'x');
  EXPECT_TRUE(Parse(pool, large).undecodable());
  EXPECT_FALSE(Parse(pool, kMail).undecodable());
  unsetenv("POSTSTELLE_PARSER_MEMORY");
}
#endif

// Every mail of the corpus is decoded without an error; the rates of what is found are checked by the end-to-end test.
TEST_F(ParserPoolTest, TheCorpusIsReadWithoutACrash) {
  const char* given = std::getenv("POSTSTELLE_CORPUS");
  const std::filesystem::path corpus = given != nullptr ? given : DEFAULT_CORPUS;
  ASSERT_TRUE(std::filesystem::is_directory(corpus / "data"))
      << "no sample mails in " << corpus << "; set POSTSTELLE_CORPUS to the folder that holds data/";
  ParserPool pool(runtime_.executor(), With(PARSER_BINARY));
  int mails = 0;
  for (const auto& file : std::filesystem::recursive_directory_iterator(corpus / "data")) {
    if (file.path().extension() != ".eml") continue;
    std::ifstream in(file.path(), std::ios::binary);
    const std::string raw((std::istreambuf_iterator<char>(in)), {});
    const mail::ParsedMail mail = Parse(pool, raw);
    EXPECT_FALSE(mail.undecodable()) << file.path() << ": " << mail.undecodable_reason();
    ++mails;
  }
  EXPECT_GT(mails, 400);
}

}  // namespace
}  // namespace poststelle::parsing
