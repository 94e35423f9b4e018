#include "libs/imap/client.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <optional>

#include "libs/async/runtime.h"

namespace poststelle::imap {
namespace {

// A server's side of a connection: answers the n-th write with the n-th of `answers`.
class ScriptedStream : public net::Stream {
 public:
  explicit ScriptedStream(std::deque<std::string> answers) : answers_(std::move(answers)) {}
  async::Task<absl::StatusOr<size_t>> ReadSome(char* buffer, size_t size, absl::Duration) override {
    if (bytes_.empty()) co_return net::MakeNetError(net::NetError::kClosed, "the server closed the connection");
    const size_t part = bytes_.copy(buffer, size);
    bytes_.erase(0, part);
    co_return part;
  }
  async::Task<absl::Status> Write(std::string_view, absl::Duration) override {
    Answer();
    co_return absl::OkStatus();
  }
  async::Task<absl::Status> StartTls(const net::TlsOptions&, absl::Duration) override { co_return absl::OkStatus(); }
  bool is_tls() const override { return false; }
  void Wake() override {}
  void Close() override {}

 private:
  void Answer() {
    if (answers_.empty()) return;
    bytes_ += answers_.front();
    answers_.pop_front();
  }
  std::deque<std::string> answers_;
  std::string bytes_ = "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n";
};

class Bodies : public BodySink {
 public:
  absl::Status Begin(uint32_t uid, uint64_t) override {
    current = uid;
    held[uid].clear();
    return absl::OkStatus();
  }
  absl::Status Append(std::string_view bytes) override {
    held[current].append(bytes);
    return absl::OkStatus();
  }
  absl::Status End(uint32_t uid) override {
    ended[uid] = held[uid];
    return absl::OkStatus();
  }
  uint32_t current = 0;
  std::map<uint32_t, std::string> held;
  std::map<uint32_t, std::string> ended;
};

class ClientTest : public ::testing::Test {
 protected:
  template <typename T>
  static async::Task<void> Store(async::Task<T> task, std::optional<T>& out) {
    out.emplace(co_await std::move(task));
  }
  template <typename T>
  T Await(async::Task<T> task) {
    std::optional<T> out;
    async::RunBlocking(runtime_.executor(), Store(std::move(task), out));
    return *std::move(out);
  }

  // A client that is signed in, to whose first command `answer` comes.
  std::unique_ptr<Client> Ready(const std::string& answer) {
    ConnectOptions options;
    options.encryption = Encryption::kNone;
    options.login = "joe";
    options.password = SecretString("secret");
    std::deque<std::string> answers{"h1 OK done\r\n", answer};
    auto client = Await(Client::Connect(std::make_unique<ScriptedStream>(std::move(answers)), std::move(options)));
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }

  async::Runtime runtime_{1};
};

TEST_F(ClientTest, ABodyWhoseUidComesBehindItIsTakenOnlyAlone) {
  const std::string late = "* 1 FETCH (BODY[] {5}\r\nhello UID 5)\r\n";
  Bodies bodies;
  auto alone = Await(Ready(late + "c2 OK\r\n")->FetchBodies({5}, bodies));
  ASSERT_TRUE(alone.ok()) << alone.status();
  EXPECT_TRUE(alone->missing.empty());
  EXPECT_EQ(bodies.ended[5], "hello");

  // Among several nobody knows whose it is until it is over, and it is not kept: it counts as not delivered.
  Bodies several;
  auto together = Await(Ready(late + "* 2 FETCH (UID 6 BODY[] {2}\r\nho)\r\nc2 OK\r\n")->FetchBodies({5, 6}, several));
  ASSERT_TRUE(together.ok()) << together.status();
  EXPECT_EQ(together->missing, (std::vector<uint32_t>{5}));
  EXPECT_EQ(several.ended, (std::map<uint32_t, std::string>{{6, "ho"}}));
}

TEST_F(ClientTest, ABodyOfAnotherMessageIsNotTakenForTheOneAskedFor) {
  Bodies bodies;
  auto result = Await(Ready("* 1 FETCH (BODY[] {5}\r\nhello UID 9)\r\n"
                            "* 1 FETCH (BODY[] {5}\r\nhello)\r\nc2 OK\r\n")
                          ->FetchBodies({5}, bodies));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->missing, (std::vector<uint32_t>{5}));
  EXPECT_TRUE(bodies.ended.empty());
}

TEST_F(ClientTest, WhatPassesIsToldFromARefusal) {
  for (const char* passing :
       {"NO [UNAVAILABLE] x", "NO [INUSE] x", "NO [LIMIT] x", "NO [THROTTLED] x", "BAD Request is throttled."}) {
    auto header = Await(Ready(std::string("c2 ") + passing + "\r\n")->FetchHeader(5, 1000));
    EXPECT_EQ(GetErrorKind(header.status()), ErrorKind::kServerRefused);
    EXPECT_TRUE(IsPassing(header.status())) << passing;
  }
  for (const char* final : {"NO no such message", "NO [SERVERBUG] internal error", "BAD syntax"}) {
    auto header = Await(Ready(std::string("c2 ") + final + "\r\n")->FetchHeader(5, 1000));
    EXPECT_EQ(GetErrorKind(header.status()), ErrorKind::kServerRefused);
    EXPECT_FALSE(IsPassing(header.status())) << final;
  }
  Bodies bodies;
  auto bye = Await(Ready("* BYE Server shutting down.\r\n")->FetchBodies({5}, bodies));
  EXPECT_EQ(GetErrorKind(bye.status()), ErrorKind::kServerBye);
  EXPECT_TRUE(IsPassing(bye.status()));
}

TEST_F(ClientTest, AListingTellsWhatIsLacking) {
  std::map<uint32_t, std::string> lacks;
  std::function<absl::Status(MessageInfo)> on_message = [&lacks](MessageInfo info) {
    lacks[info.uid] = info.lacks;
    return absl::OkStatus();
  };
  const std::string date = "INTERNALDATE \"24-Nov-2026 09:00:00 +0000\"";
  auto listed = Await(Ready("* 1 FETCH (UID 1 RFC822.SIZE 5 " + date + ")\r\n* 2 FETCH (UID 2 " + date +
                            ")\r\n* 3 FETCH (UID 3 RFC822.SIZE 5)\r\n* 4 FETCH (FLAGS (\\Seen))\r\nc2 OK\r\n")
                          ->FetchInfos({1, kMaxUid}, false, on_message));
  ASSERT_TRUE(listed.ok()) << listed;
  EXPECT_EQ(lacks, (std::map<uint32_t, std::string>{{1, ""}, {2, "RFC822.SIZE"}, {3, "INTERNALDATE"}}));
  for (const std::string& wrong : {"* 1 FETCH (RFC822.SIZE 5 " + date + ")\r\n", std::string("* 1 FETCH (UID 0)\r\n"),
                                   std::string("* 1 FETCH (UID 1 RFC822.SIZE 9223372036854775808)\r\n")}) {
    EXPECT_EQ(GetErrorKind(Await(Ready(wrong)->FetchInfos({1, kMaxUid}, false, on_message))), ErrorKind::kProtocol)
        << wrong;
  }
}

}  // namespace
}  // namespace poststelle::imap
