// Lists over gRPC whose entries are large: every page fits into an answer, and together they are complete.
#include <grpcpp/grpcpp.h>

#include "services/fetcher/names.h"
#include "services/fetcher/quarantine_service.h"
#include "services/fetcher/testing_ledger.h"
#include "services/fetcher/ticket_feed_service.h"

namespace poststelle::fetcher {
namespace {

constexpr size_t kGrpcLimit = 4 << 20;

class PageTest : public LedgerTest {
 protected:
  PageTest() {
    grpc::ServerBuilder builder;
    gate_.Open();
    builder.RegisterService(&tickets_);
    builder.RegisterService(&quarantine_);
    server_ = builder.BuildAndStart();
    channel_ = server_->InProcessChannel({});
  }
  ~PageTest() override { server_->Shutdown(); }

  void Execute(std::string_view statement, std::vector<sql::Value> params) {
    sql::Work work = [statement, params](sql::Transaction& tx) -> async::Task<absl::Status> {
      absl::StatusOr<sql::Result> result = co_await tx.Execute(statement, params);
      co_return result.status();
    };
    const absl::Status done = Write(std::move(work));
    ASSERT_TRUE(done.ok()) << done;
  }

  const std::atomic<bool> draining_{false};
  const std::unique_ptr<rpc::Access> access_ = rpc::Access::Unguarded();
  rpc::Gate gate_{runtime_.executor(), *access_};
  TicketFeed events_{runtime_.executor(), *database_, feed_};
  Subscriptions subscriptions_{*database_, feed_, "me", {}};
  FeedHub hub_{runtime_.executor(), events_, subscriptions_, {}};
  const std::unique_ptr<blob::Store> raw_ = blob::MakeRowStore();
  LedgerQueries queries_{*database_, *raw_};
  SubscriptionQueries subscription_queries_{*database_, feed_};
  TicketFeedService tickets_{gate_, events_, hub_, queries_, subscription_queries_, draining_};
  QuarantineService quarantine_{gate_, queries_, feed_};
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

INSTANTIATE_TEST_SUITE_P(Engines, PageTest, ::testing::Values(sql::Engine::kSqlite, sql::Engine::kPostgres),
                         [](const auto& info) { return testing::EngineName(info.param); });

TEST_P(PageTest, Events) {
  constexpr int kEvents = 8;
  for (uint32_t uid = 1; uid <= kEvents; ++uid) {
    ASSERT_TRUE(List(uid).ok());
    Publication p = Mail(uid, "a@example.org", std::to_string(uid) + "@x", std::to_string(uid));
    if (uid > 1) p.content.add_in_reply_to("1@x");
    p.content.set_text(std::string(1 << 20, 'a'));
    ASSERT_TRUE(Publish(p).ok());
  }
  auto stub = v1::TicketFeedService::NewStub(channel_);
  int seen = 0;
  for (int partition = 0; partition < feed_.partitions; ++partition) {
    v1::ListTicketEventsRequest request;
    request.mutable_after()->set_partition(partition);
    request.set_page_size(1000);
    v1::ListTicketEventsResponse page;
    do {
      grpc::ClientContext context;
      const grpc::Status status = stub->ListTicketEvents(&context, request, &page);
      ASSERT_TRUE(status.ok()) << status.error_message();
      EXPECT_LT(page.ByteSizeLong(), kGrpcLimit);
      if (page.last_offset() > request.after().offset()) ASSERT_GT(page.events_size(), 0);
      for (const v1::TicketEvent& event : page.events()) {
        EXPECT_EQ(event.position().offset(), request.after().offset() + 1);
        request.mutable_after()->set_offset(event.position().offset());
        ++seen;
      }
    } while (request.after().offset() < page.last_offset());
  }
  EXPECT_EQ(seen, kEvents);
}

TEST_P(PageTest, TicketsAndQuarantine) {
  constexpr int kEntries = 70;
  const std::string large(100 << 10, 's');
  for (int i = 0; i < kEntries; ++i) {
    const std::string id = "t" + std::to_string(i);
    Execute(
        "INSERT INTO ticket (ticket_id, mailbox_id, subject, feed_partition, create_time, update_time, "
        "message_count) VALUES ($1, 'support', $2, 0, $3, $3, 1)",
        {id, large, int64_t{i}});
  }
  std::vector<Decision> decisions(kEntries);
  for (int i = 0; i < kEntries; ++i) decisions[i].uid = i + 1;
  ASSERT_TRUE(Write([&](sql::Transaction& tx) { return InsertDecisions(tx, folder_, 7, decisions); }).ok());
  Execute("UPDATE message SET state = 'quarantined', reason = $1, decide_time = uid", {large});

  auto tickets = v1::TicketFeedService::NewStub(channel_);
  std::set<std::string> names;
  v1::ListTicketsRequest request;
  request.set_page_size(1000);
  do {
    grpc::ClientContext context;
    v1::ListTicketsResponse page;
    const grpc::Status status = tickets->ListTickets(&context, request, &page);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_LT(page.ByteSizeLong(), kGrpcLimit);
    for (const v1::Ticket& ticket : page.tickets()) names.insert(ticket.name());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_EQ(names.size(), static_cast<size_t>(kEntries));

  auto quarantine = v1::QuarantineService::NewStub(channel_);
  names.clear();
  v1::ListQuarantinedMessagesRequest more;
  more.set_page_size(1000);
  do {
    grpc::ClientContext context;
    v1::ListQuarantinedMessagesResponse page;
    const grpc::Status status = quarantine->ListQuarantinedMessages(&context, more, &page);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_LT(page.ByteSizeLong(), kGrpcLimit);
    for (const v1::QuarantinedMessage& message : page.messages()) names.insert(message.name());
    more.set_page_token(page.next_page_token());
  } while (!more.page_token().empty());
  EXPECT_EQ(names.size(), static_cast<size_t>(kEntries));
}

TEST(Names, AnIdHasNoControlCharacter) {
  for (const std::string& id : {std::string("a\n"), std::string("a\rb"), std::string("a\0", 2), std::string("a b")}) {
    std::vector<rpc::Violation> violations;
    EXPECT_EQ(IdOf("tickets/" + id, "tickets", "name", violations), "");
    ASSERT_EQ(violations.size(), 1u);
    EXPECT_EQ(violations[0].field, "name");
  }
  std::vector<rpc::Violation> none;
  EXPECT_EQ(IdOf("tickets/a1-b", "tickets", "name", none), "a1-b");
  EXPECT_TRUE(none.empty());
}

}  // namespace
}  // namespace poststelle::fetcher
