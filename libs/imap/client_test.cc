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
  explicit ScriptedStream(std::deque<std::string> answers, std::vector<std::string>* written = nullptr)
      : answers_(std::move(answers)), written_(written) {}
  async::Task<absl::StatusOr<size_t>> ReadSome(char* buffer, size_t size, absl::Duration) override {
    if (bytes_.empty()) co_return net::MakeNetError(net::NetError::kClosed, "the server closed the connection");
    const size_t part = bytes_.copy(buffer, size);
    bytes_.erase(0, part);
    co_return part;
  }
  async::Task<absl::Status> Write(std::string_view bytes, absl::Duration) override {
    if (written_ != nullptr) written_->push_back(std::string(bytes));
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
  std::vector<std::string>* written_;
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
  std::unique_ptr<Client> Ready(const std::string& answer) { return Connected({"h1 OK done\r\n", answer}, {}); }
  // One that is connected with the n-th write answered by the n-th of `answers`.
  std::unique_ptr<Client> Connected(std::deque<std::string> answers, std::vector<std::string> folders) {
    ConnectOptions options;
    options.folders = std::move(folders);
    options.encryption = Encryption::kNone;
    options.login = "joe";
    options.password = SecretString("secret");
    written_.clear();
    auto client =
        Await(Client::Connect(std::make_unique<ScriptedStream>(std::move(answers), &written_), std::move(options)));
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }

  async::Runtime runtime_{1};
  std::vector<std::string> written_;
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

TEST_F(ClientTest, SeveralFoldersAreOpenedInOnePacketWithTheSignIn) {
  const std::string answers =
      "h1 OK in\r\n* 3 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 4] x\r\nc2 OK opened\r\n"
      "c3 NO no such folder\r\n* OK [CLOSED] x\r\n* 5 EXISTS\r\n* OK [UIDVALIDITY 9] x\r\nc4 OK opened\r\n";
  auto client = Connected({answers, "c5 NO [UNAVAILABLE] later\r\n"}, {"Aufträge", "Gone", "INBOX"});
  ASSERT_EQ(written_.size(), 1u);
  EXPECT_TRUE(written_[0].ends_with("c2 EXAMINE \"Auftr&AOQ-ge\"\r\nc3 EXAMINE \"Gone\"\r\nc4 EXAMINE \"INBOX\"\r\n"));
  auto states = Await(client->ExamineAll({"Aufträge", "Gone", "INBOX"}));
  ASSERT_TRUE(states.ok()) << states.status();
  ASSERT_EQ(states->size(), 3u);
  ASSERT_TRUE((*states)[0].ok());
  EXPECT_EQ((*states)[0]->uid_validity, 7u);
  EXPECT_EQ((*states)[0]->uid_next, 4u);
  EXPECT_EQ(GetErrorKind((*states)[1].status()), ErrorKind::kFolderMissing);
  ASSERT_TRUE((*states)[2].ok());
  EXPECT_EQ((*states)[2]->uid_validity, 9u);
  EXPECT_EQ((*states)[2]->exists, 5u);
  EXPECT_EQ((*states)[2]->uid_next, 0u);  // nothing of the first one's
  EXPECT_EQ(written_.size(), 1u);
  EXPECT_EQ(GetErrorKind(Await(client->Examine("Aufträge")).status()), ErrorKind::kServerRefused);
}

TEST_F(ClientTest, ChangesNameUidsAndNothingElse) {
  auto client = Connected(
      {"h1 OK in\r\n",
       "* OK [UIDVALIDITY 7] x\r\nc2 OK [READ-WRITE] opened\r\n* CAPABILITY IMAP4rev1 UIDPLUS MOVE\r\nc3 "
       "OK\r\n",
       "c4 OK\r\n", "* 3 EXPUNGE\r\nc5 OK\r\n", "c6 NO [TRYCREATE] no such folder\r\n", "* VANISHED 1\r\nc7 OK\r\n"},
      {});
  auto folder = Await(client->Select("INBOX"));
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_EQ(folder->state.uid_validity, 7u);
  EXPECT_FALSE(folder->read_only);
  EXPECT_TRUE(folder->move);
  EXPECT_TRUE(folder->uid_expunge);
  EXPECT_TRUE(Await(client->AddFlag({3, 1, 2, 9}, "\\Seen")).ok());
  EXPECT_TRUE(Await(client->UidExpunge({4})).ok());
  EXPECT_EQ(GetErrorKind(Await(client->Move({5}, "Äpfel"))), ErrorKind::kFolderMissing);
  EXPECT_TRUE(Await(client->Copy({5}, "Done")).ok());
  ASSERT_EQ(written_.size(), 6u);
  EXPECT_EQ(written_[1], "c2 SELECT \"INBOX\"\r\nc3 CAPABILITY\r\n");
  EXPECT_EQ(written_[2], "c4 UID STORE 1:3,9 +FLAGS.SILENT (\\Seen)\r\n");
  EXPECT_EQ(written_[3], "c5 UID EXPUNGE 4\r\n");
  EXPECT_EQ(written_[4], "c6 UID MOVE 5 \"&AMQ-pfel\"\r\n");
  EXPECT_EQ(written_[5], "c7 UID COPY 5 \"Done\"\r\n");
}

TEST_F(ClientTest, AFolderThatIsReadOnlyAndAServerThatCanLittleAreKnown) {
  auto client = Connected({"h1 OK in\r\n", "c2 OK [READ-ONLY] opened\r\n* CAPABILITY IMAP4rev1\r\nc3 OK\r\n"}, {});
  auto folder = Await(client->Select("INBOX"));
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_TRUE(folder->read_only);
  EXPECT_FALSE(folder->move);
  EXPECT_FALSE(folder->uid_expunge);
}

}  // namespace
}  // namespace poststelle::imap
