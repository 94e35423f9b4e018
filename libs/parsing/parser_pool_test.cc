#include "libs/parsing/parser_pool.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <vector>

#include "absl/time/clock.h"
#include "libs/base/ids.h"

namespace poststelle::parsing {
namespace {

using Result = absl::StatusOr<mail::ParsedMail>;

using Results = absl::StatusOr<std::vector<mail::ParsedMail>>;

template <typename T>
async::Task<void> Into(async::Task<T> task, std::optional<T>& out) {
  out.emplace(co_await std::move(task));
}

class ParserPoolTest : public ::testing::Test {
 protected:
  ParserPoolTest() { std::filesystem::create_directory(directory_); }
  ~ParserPoolTest() override { std::filesystem::remove_all(directory_); }

  mail::ParsedMail Parse(ParserPool& pool, const std::string& raw) {
    Result result = TryParse(pool, raw);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *std::move(result) : mail::ParsedMail();
  }
  Result TryParse(ParserPool& pool, const std::string& raw) {
    std::optional<Result> out;
    async::RunBlocking(runtime_.executor(), Into(pool.Parse(raw), out));
    return *std::move(out);
  }
  Results TryParseAll(ParserPool& pool, const std::vector<std::string>& raws) {
    std::vector<const std::string*> all;
    for (const std::string& raw : raws) all.push_back(&raw);
    std::optional<Results> out;
    async::RunBlocking(runtime_.executor(), Into(pool.ParseAll(all), out));
    return *std::move(out);
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

// A string: what Parse() is given must outlive it.
const std::string kMail = "From: a@example.org\nSubject: Hello\nMessage-ID: <1@x>\n\ntext\n";

TEST_F(ParserPoolTest, ManyMailsThroughFewChildren) {
  ParserPool pool(runtime_.executor(), With(PARSER_BINARY));
  for (int i = 0; i < 50; ++i) {
    const mail::ParsedMail mail = Parse(pool, kMail);
    EXPECT_EQ(mail.subject(), "Hello");
    EXPECT_EQ(mail.text(), "text\n");
    EXPECT_FALSE(mail.undecodable());
  }
}

TEST_F(ParserPoolTest, SeveralAtOnceAreEachTheirOwn) {
  ParserPool pool(runtime_.executor(), With(PARSER_BINARY));
  // A few answers, many answers, answers that are gathered in parts, and more than goes together.
  for (const size_t size : {10, 20'000, 50'000, 400'000, 1'500'000}) {
    std::vector<std::string> raws;
    for (size_t i = 0; i < (size > 30'000 ? 5 : 12); ++i) {
      raws.push_back("Subject: mail " + std::to_string(i) + "\n\n" + std::string(size + i, 'x') + "\n");
    }
    const Results mails = TryParseAll(pool, raws);
    ASSERT_TRUE(mails.ok()) << mails.status();
    ASSERT_EQ(mails->size(), raws.size());
    for (size_t i = 0; i < raws.size(); ++i) {
      EXPECT_EQ((*mails)[i].subject(), "mail " + std::to_string(i));
      EXPECT_FALSE((*mails)[i].undecodable());
      if (size < 100'000) EXPECT_EQ((*mails)[i].text(), std::string(size + i, 'x') + "\n");
    }
  }
  const Results none = TryParseAll(pool, {});
  ASSERT_TRUE(none.ok());
  EXPECT_TRUE(none->empty());
}

TEST_F(ParserPoolTest, SeveralWithoutAParserStayUnknown) {
  ParserPool pool(runtime_.executor(), With((directory_ / "missing").string()));
  EXPECT_TRUE(absl::IsUnavailable(TryParseAll(pool, {kMail, kMail}).status()));
}

TEST_F(ParserPoolTest, AParserThatDiesLeavesTheHeadersAndTheReason) {
  ParserPool pool(runtime_.executor(), With(Script("printf P; kill -SEGV $$")));
  const mail::ParsedMail mail = Parse(pool, kMail);
  EXPECT_TRUE(mail.undecodable());
  EXPECT_EQ(mail.subject(), "Hello");
  EXPECT_NE(mail.undecodable_reason().find("signal 11"), std::string::npos) << mail.undecodable_reason();
}

TEST_F(ParserPoolTest, AParserThatHangsIsEndedAtTheLimit) {
  ParserPool::Options options = With(Script("printf P; exec sleep 1000"));
  options.wall_limit = absl::Milliseconds(200);
  ParserPool pool(runtime_.executor(), options);
  const mail::ParsedMail mail = Parse(pool, kMail);
  EXPECT_TRUE(mail.undecodable());
  EXPECT_NE(mail.undecodable_reason().find("exceeded"), std::string::npos);
}

// Nothing is known about the mail then: it must not be taken for one that can't be decoded.
TEST_F(ParserPoolTest, AParserThatCantServeIsNamedAndNoResult) {
  struct Case {
    std::string binary;
    std::string reason;
  };
  const std::string not_executable = (directory_ / "data").string();
  std::ofstream(not_executable) << "x";
  std::vector<Case> cases = {{"/nonexistent/parser", "No such file"}, {not_executable, "Permission denied"}};
  for (const Case& c : cases) {
    ParserPool pool(runtime_.executor(), With(c.binary));
    const absl::Status status = TryParse(pool, kMail).status();
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_NE(status.message().find(c.binary), std::string::npos) << status;
    EXPECT_NE(status.message().find(c.reason), std::string::npos) << status;
  }
  cases = {{"exit 7", "code 7"},
           {"kill -KILL $$", "signal 9"},
           {"printf '!no seccomp here'", "no seccomp here"},
           {"exec sleep 1000", "not ready in time"}};
  for (const Case& c : cases) {
    ParserPool::Options options = With(Script(c.binary));
    options.start_limit = absl::Milliseconds(500);
    ParserPool pool(runtime_.executor(), options);
    const absl::Status status = TryParse(pool, kMail).status();
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_NE(status.message().find(options.binary), std::string::npos) << status;
    EXPECT_NE(status.message().find(c.reason), std::string::npos) << status;
  }
}

TEST_F(ParserPoolTest, CancellationEndsTheChildAtOnce) {
  // Before its hello, while the mail is written (more than a socket holds), and while the answer is awaited.
  for (const char* script : {"", "printf P; ", "printf P; cat >/dev/null & "}) {
    const std::string pid_file = (directory_ / "pid").string();
    ParserPool::Options options = With(Script("echo $$ > " + pid_file + "; " + script + "exec sleep 1000"));
    options.wall_limit = options.start_limit = absl::Seconds(60);
    ParserPool pool(runtime_.executor(), options);
    const std::string raw = kMail + std::string(8 << 20, 'x');
    std::optional<Result> out;
    async::TaskScope scope(runtime_.executor());
    const absl::Time start = absl::Now();
    scope.Spawn(Into(pool.Parse(raw), out));
    absl::SleepFor(absl::Milliseconds(400));
    scope.Cancel();
    scope.JoinBlocking();
    EXPECT_LT(absl::Now() - start, absl::Seconds(10));
    ASSERT_TRUE(out.has_value());
    EXPECT_TRUE(absl::IsCancelled(out->status())) << out->status();
    pid_t pid = 0;
    std::ifstream(pid_file) >> pid;
    ASSERT_GT(pid, 0);
    EXPECT_NE(kill(pid, 0), 0);
  }
}

TEST_F(ParserPoolTest, AChildOutlivesTheThreadThatStartedIt) {
  const std::string starts = (directory_ / "starts").string();
  ParserPool pool(runtime_.executor(), With(Script("echo x >> " + starts + "; exec " PARSER_BINARY " \"$@\"")));
  {
    async::Runtime other(1);
    std::optional<Result> out;
    async::RunBlocking(other.executor(), Into(pool.Parse(kMail), out));
    EXPECT_EQ((*out)->subject(), "Hello");
  }
  absl::SleepFor(absl::Milliseconds(100));
  EXPECT_EQ(Parse(pool, kMail).subject(), "Hello");
  EXPECT_EQ(std::filesystem::file_size(starts), 2u);  // one line
}

TEST_F(ParserPoolTest, AChildEndsWithItsInput) {
  EXPECT_EQ(std::system("timeout 20 " PARSER_BINARY " </dev/null >/dev/null"), 0);
}

// Two children that take long to be told dead, and a loop of one thread that must go on meanwhile.
TEST_F(ParserPoolTest, WaitingForAnEndLeavesTheLoopAlone) {
  ParserPool::Options options = With(Script("printf P; exec >/dev/null </dev/null; exec sleep 1000"));
  options.tries = 1;
  ParserPool pool(runtime_.executor(), options);
  async::Runtime loop(1);
  std::optional<Result> out;
  absl::Duration longest;
  auto tick = [&]() -> async::Task<void> {
    for (int i = 0; i < 100; ++i) {
      const absl::Time before = absl::Now();
      EXPECT_TRUE((co_await async::Sleep(absl::Milliseconds(2))).ok());
      longest = std::max(longest, absl::Now() - before);
    }
  };
  async::TaskScope scope(loop.executor());
  scope.Spawn(tick());
  scope.Spawn(Into(pool.Parse(kMail), out));
  scope.JoinBlocking();
  EXPECT_TRUE((*out)->undecodable());
  // Generous for a loaded machine; the child is given much longer to end.
  EXPECT_LT(longest, absl::Milliseconds(500));
}

#if !defined(__has_feature) || !__has_feature(thread_sanitizer)
TEST_F(ParserPoolTest, WhatAParserHasNoUseForKillsIt) {
  setenv("POSTSTELLE_TEST_SECRET", "secret", 1);
  ParserPool pool(runtime_.executor(), With(PROBE_BINARY));
  EXPECT_EQ(Parse(pool, "nothing").subject(), "it answered 0");
  EXPECT_EQ(Parse(pool, "environment").subject(), "empty");
  unsetenv("POSTSTELLE_TEST_SECRET");
  for (const char* what : {"open", "fork", "exec", "socket", "kill", "run"}) {
    const mail::ParsedMail mail = Parse(pool, what);
    EXPECT_NE(mail.undecodable_reason().find("signal 31"), std::string::npos)  // SIGSYS
        << what << ": " << mail.undecodable_reason() << mail.subject();
  }
}

TEST_F(ParserPoolTest, OneOfSeveralThatKillsTheParserCostsOnlyItself) {
  ParserPool pool(runtime_.executor(), With(PROBE_BINARY));
  const Results mails = TryParseAll(pool, {"environment", "fork", "nothing"});
  ASSERT_TRUE(mails.ok()) << mails.status();
  ASSERT_EQ(mails->size(), 3u);
  EXPECT_EQ((*mails)[0].subject(), "empty");
  EXPECT_TRUE((*mails)[1].undecodable());
  EXPECT_EQ((*mails)[2].subject(), "it answered 0");
}
#endif

// Charsets are loaded before the sandbox closes; one that is not known is no reason to open a file.
TEST_F(ParserPoolTest, TheSandboxedParserReadsEveryCharsetAndStumblesOverNone) {
  ParserPool pool(runtime_.executor(), With(PARSER_BINARY));
  for (const char* charset : {"iso-8859-2", "koi8-r", "windows-1251", "gb18030", "big5", "shift_jis", "euc-jp",
                              "iso-2022-jp", "euc-kr", "utf-7", "utf-16", "ibm850", "macintosh", "viscii", "ibm1047",
                              "EBCDIC-US", "x-nonsense", "INIS", "UTF-8//TRANSLIT"}) {
    for (const std::string bytes : {"=A4=A2=E4=FC=C4=E3", "=1B$B=243=1B(B"}) {
      const mail::ParsedMail mail =
          Parse(pool, std::string("From: =?") + charset + "?q?" + bytes + "?= <a@x.de>\nTo: =?" + charset +
                          "?b?xOM=?= b@x.de\nSubject: =?" + charset + "?q?" + bytes +
                          "?=\nContent-Type: multipart/mixed; "
                          "boundary=b\n\n--b\nContent-Type: text/plain; charset=" +
                          charset + "\nContent-Transfer-Encoding: quoted-printable\n\n" + bytes +
                          "\n--b\nContent-Type: application/x; name*=" + charset +
                          "''%A4%A2\nContent-Disposition: attachment; filename=\"=?" + charset + "?q?" + bytes +
                          "?=\"\n\nx\n--b--\n");
      EXPECT_FALSE(mail.undecodable()) << charset << ": " << mail.undecodable_reason();
      EXPECT_EQ(mail.from(0).address(), "a@x.de") << charset;
    }
  }
  EXPECT_EQ(Parse(pool, "Content-Type: text/plain; charset=koi8-r\n\n\xd0\xd2\xc9\xd7\xc5\xd4").text(), "привет");
  // Written anew by GMime, which makes up a boundary where there is none.
  const mail::ParsedMail nested =
      Parse(pool, "Subject: x\nContent-Type: message/rfc822\n\nSubject: y\nContent-Type: multipart/mixed\n\nx\n");
  EXPECT_FALSE(nested.undecodable()) << nested.undecodable_reason();
}

#ifndef POSTSTELLE_SANITIZED
TEST_F(ParserPoolTest, AMailThatNeedsMoreMemoryThanAllowedCostsOnlyItself) {
  ParserPool::Options options = With(PARSER_BINARY);
  options.max_memory_bytes = 200'000'000;
  ParserPool pool(runtime_.executor(), options);
  std::string large = kMail;
  large.append(60 << 20, 'x');
  EXPECT_TRUE(Parse(pool, large).undecodable());
  EXPECT_FALSE(Parse(pool, kMail).undecodable());
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
