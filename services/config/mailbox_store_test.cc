// The store on a database of its own, and the watch over gRPC with as many mailboxes as an installation may have.
#include "services/config/mailbox_store.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "libs/base/ids.h"
#include "libs/base/reason.h"
#include "services/config/mailbox_service.h"

namespace poststelle::config {
namespace {

template <typename T>
async::Task<void> StoreResult(async::Task<T> task, std::optional<T>& out) {
  out.emplace(co_await std::move(task));
}

StoredMailbox Mailbox(const std::string& id) {
  StoredMailbox out;
  out.mailbox.set_name("mailboxes/" + id);
  out.mailbox.set_display_name(id);
  out.mailbox.set_direction(v1::Mailbox::DIRECTION_INBOUND);
  out.mailbox.set_address(id + "@example.org");
  out.mailbox.mutable_connection()->set_protocol(v1::Connection::PROTOCOL_IMAP);
  out.mailbox.mutable_connection()->set_host("imap.example.org");
  out.mailbox.mutable_password_authentication();
  return out;
}

class StoreTest : public ::testing::Test {
 protected:
  StoreTest() {
    std::filesystem::create_directory(directory_);
    auto opened = sql::Open(runtime_.executor(), "sqlite:" + (directory_ / "config.db").string());
    if (!opened.ok()) throw std::runtime_error(opened.status().ToString());
    database_ = std::move(*opened);
  }
  ~StoreTest() override {
    database_.reset();
    std::filesystem::remove_all(directory_);
  }

  template <typename T>
  T Await(async::Task<T> task) {
    std::optional<T> out;
    async::RunBlocking(runtime_.executor(), StoreResult(std::move(task), out));
    return std::move(*out);
  }
  void Migrate() {
    const absl::Status migrated = Await(sql::Migrate(*database_, ConfigMigrations()));
    ASSERT_TRUE(migrated.ok()) << migrated;
  }
  void Execute(std::string_view statement) {
    const absl::Status done = Await(database_->Write([statement](sql::Transaction& tx) -> async::Task<absl::Status> {
      absl::StatusOr<sql::Result> result = co_await tx.Execute(statement);
      co_return result.status();
    }));
    ASSERT_TRUE(done.ok()) << done;
  }
  void Make(MailboxStore& store, const std::string& id) {
    auto made = Await(store.Create(Mailbox(id), {}));
    ASSERT_TRUE(made.ok()) << made.status();
  }

  // The API on `store`, and a client of it.
  struct Served {
    Served(StoreTest& test, MailboxStore& store)
        : vault(*secrets::Vault::OpenOrCreate((test.directory_ / "key").string())),
          gate(test.runtime_.executor(), *access),
          hub(test.runtime_.executor(), store, epoch),
          lookup(test.runtime_.executor(), nullptr, absl::Seconds(1)),
          probe_clients(test.runtime_.executor(), nullptr, nullptr),
          probe(store, *vault, absl::Minutes(1), probe_clients),
          service(gate, store, hub, *vault, epoch, absl::Minutes(1), draining, lookup, probe) {
      gate.Open();
      store.OnCommit([this] { hub.Nudge(); });
      hub.Start();
      grpc::ServerBuilder builder;
      builder.RegisterService(&service);
      server = builder.BuildAndStart();
      stub = v1::MailboxService::NewStub(server->InProcessChannel({}));
    }
    ~Served() {
      server->Shutdown();
      hub.Stop();
    }
    const std::atomic<bool> draining{false};
    const std::unique_ptr<secrets::Vault> vault;
    const std::string epoch = "epoch";
    const std::unique_ptr<rpc::Access> access = rpc::Access::Unguarded();
    rpc::Gate gate;
    ChangeHub hub;
    FetcherClient lookup;  // of no fetcher
    ProbeClients probe_clients;
    MailboxProbe probe;
    MailboxService service;
    std::unique_ptr<grpc::Server> server;
    std::unique_ptr<v1::MailboxService::Stub> stub;
  };

  const std::filesystem::path directory_ = std::filesystem::temp_directory_path() / ("poststelle-config-" + RandomId());
  async::Runtime runtime_{2};
  std::unique_ptr<sql::Database> database_;
};

TEST_F(StoreTest, RevisionsComeFromACounterAndGoOnWhereTheLogOfAnOlderProgramEnded) {
  ASSERT_TRUE(Await(sql::Migrate(*database_, {ConfigMigrations()[0]})).ok());
  Execute("INSERT INTO mailbox_change (revision, mailbox_id) VALUES (41, 'old')");
  Execute("INSERT INTO create_request (request_id, request_hash, mailbox_id) VALUES ('r', 'unkeyed', 'old')");
  Migrate();
  MailboxStore store(*database_, 100);
  Make(store, "first");
  EXPECT_EQ(Await(store.ReadSnapshot())->revision, 42);

  // The log is no source of revisions: what a watcher has seen is never given out again.
  Execute("DELETE FROM mailbox_change");
  Make(store, "second");
  EXPECT_EQ(Await(store.ReadSnapshot())->revision, 43);

  // The older program, run once more, knows no counter.
  Execute("INSERT INTO mailbox_change (revision, mailbox_id) VALUES (44, 'first')");
  Make(store, "third");
  EXPECT_EQ(Await(store.ReadSnapshot())->revision, 45);
  auto changes = Await(store.ReadChanges(43));
  ASSERT_TRUE(changes.ok());
  ASSERT_EQ(changes->size(), 2u);
  EXPECT_EQ((*changes)[1].mailbox_id, "third");
  EXPECT_TRUE(absl::IsOutOfRange(Await(store.ReadChanges(46)).status()));

  // A hash of the older program says nothing about a request any more.
  RequestMark again;
  again.id = "r";
  again.is_same = [](const std::string& stored) {
    return stored.empty() ? absl::NotFoundError("no key") : absl::OkStatus();
  };
  const absl::Status replayed = Await(store.Create(Mailbox("fourth"), again)).status();
  EXPECT_EQ(ReasonOf(replayed), "REQUEST_ID_REUSED");
  EXPECT_NE(replayed.message().find("mailboxes/old"), absl::string_view::npos) << replayed;
}

TEST_F(StoreTest, TheHistoryKeepsItsLengthAndItsNewestEntry) {
  Migrate();
  MailboxStore store(*database_, 2);
  for (int i = 0; i < 5; ++i) Make(store, absl::StrCat("box-", i));
  EXPECT_EQ(Await(store.ReadChanges(3))->size(), 2u);
  EXPECT_TRUE(absl::IsOutOfRange(Await(store.ReadChanges(2)).status()));
}

TEST_F(StoreTest, APageOfLargeMailboxesFitsIntoAnAnswer) {
  constexpr int kMailboxes = 70;
  Migrate();
  MailboxStore store(*database_, 100);
  for (int i = 0; i < kMailboxes; ++i) {
    StoredMailbox mailbox = Mailbox(absl::StrCat("box-", i));
    mailbox.mailbox.mutable_connection()->set_ca_certificates_pem(std::string(64 << 10, 'p'));
    ASSERT_TRUE(Await(store.Create(std::move(mailbox), {})).ok());
  }
  Served served(*this, store);
  v1::ListMailboxesRequest request;
  request.set_page_size(1000);
  int seen = 0;
  do {
    grpc::ClientContext context;
    v1::ListMailboxesResponse page;
    const grpc::Status status = served.stub->ListMailboxes(&context, request, &page);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_LT(page.ByteSizeLong(), size_t{4} << 20);
    seen += page.mailboxes_size();
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_EQ(seen, kMailboxes);
}

TEST_F(StoreTest, AWatcherReceivesTenThousandMailboxes) {
  constexpr int kMailboxes = 10'000;
  Migrate();
  MailboxStore store(*database_, 100);
  Make(store, "first-box");
  for (int i = 0; i < kMailboxes - 1; ++i) Make(store, absl::StrCat("box-", i));

  Served served(*this, store);
  const absl::Time begin = absl::Now();
  int seen = 0;
  {
    grpc::ClientContext context;
    auto reader = served.stub->WatchMailboxes(&context, {});
    v1::WatchMailboxesResponse response;
    while (reader->Read(&response) && !response.has_synced()) seen += response.has_upserted() ? 1 : 0;
    EXPECT_TRUE(response.has_synced());
    context.TryCancel();
  }
  const absl::Duration took = absl::Now() - begin;
  RecordProperty("milliseconds", static_cast<int>(absl::ToInt64Milliseconds(took)));
  EXPECT_EQ(seen, kMailboxes);
  EXPECT_LT(took, absl::Seconds(30));
}

}  // namespace
}  // namespace poststelle::config
