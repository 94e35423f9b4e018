#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "libs/base/reason.h"
#include "libs/rpc/bidi.h"
#include "libs/rpc/options.h"
#include "libs/rpc/page_token.h"
#include "libs/rpc/status.h"
#include "poststelle/fetcher/v1/ticket_feed_service.grpc.pb.h"

namespace poststelle::rpc {
namespace {

TEST(Status, EveryBadFieldTravels) {
  const grpc::Status status =
      InvalidFields({{"mailbox.connection.port", "1 to 65535"}, {"mailbox.address", "missing"}});
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(ReasonOf(status), "INVALID_FIELDS");
  ASSERT_EQ(ViolationsOf(status).size(), 2u);
  EXPECT_EQ(ViolationsOf(status)[1].field, "mailbox.address");
}

TEST(Status, AnAbslStatusKeepsItsReason) {
  EXPECT_EQ(ReasonOf(FromAbsl(WithReason(absl::NotFoundError("no"), "TICKET_NOT_FOUND"))), "TICKET_NOT_FOUND");
  EXPECT_EQ(ReasonOf(FromAbsl(absl::UnavailableError("later"))), "UNAVAILABLE");
  EXPECT_TRUE(FromAbsl(absl::OkStatus()).ok());
}

TEST(PageToken, IsBoundToItsArgumentsAndRefusedWhenAltered) {
  const std::string token = MakePageToken("key", "mailbox=a", "position");
  EXPECT_EQ(*ReadPageToken("key", "mailbox=a", token), "position");
  EXPECT_EQ(*ReadPageToken("key", "mailbox=a", ""), "");
  EXPECT_FALSE(ReadPageToken("key", "mailbox=b", token).ok());
  EXPECT_FALSE(ReadPageToken("other", "mailbox=a", token).ok());
  EXPECT_FALSE(ReadPageToken("key", "mailbox=a", "x" + token).ok());
  EXPECT_FALSE(ReadPageToken("key", "mailbox=a", "!").ok());
}

TEST(PageToken, PageSizes) {
  EXPECT_EQ(*PageSize(0, 50, 1000), 50);
  EXPECT_EQ(*PageSize(5000, 50, 1000), 1000);
  EXPECT_FALSE(PageSize(-1, 50, 1000).ok());
}

TEST(Options, FlagsAreAlsoEnvironmentVariables) {
  setenv("POSTSTELLE_DEMO_LEASE", "500ms", 1);
  Options options("demo", "A demo.");
  absl::Duration lease = absl::Seconds(10);
  int64_t sessions = 5;
  options.Duration("--lease", lease, "Lease");
  options.Number("--sessions", sessions, "Sessions", 1, 10);
  std::string program = "demo";
  std::string flag = "--sessions=7";
  char* argv[] = {program.data(), flag.data()};
  EXPECT_FALSE(options.Parse(2, argv).has_value());
  EXPECT_EQ(lease, absl::Milliseconds(500));
  EXPECT_EQ(sessions, 7);
  unsetenv("POSTSTELLE_DEMO_LEASE");
}

TEST(Options, AMistakeExitsWithTwo) {
  Options options("demo", "A demo.");
  int64_t sessions = 5;
  options.Number("--sessions", sessions, "Sessions", 1, 10);
  std::string program = "demo";
  std::string flag = "--sessions=11";
  char* argv[] = {program.data(), flag.data()};
  testing::internal::CaptureStderr();
  EXPECT_EQ(options.Parse(2, argv), 2);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("--sessions"), std::string::npos);
}

using Stream = Bidi<fetcher::v1::SubscribeRequest, fetcher::v1::SubscribeResponse>;

class EndsAtOnce : public fetcher::v1::TicketFeedService::CallbackService {
 public:
  explicit EndsAtOnce(asio::any_io_executor executor) : stream(std::make_shared<Stream>(executor)), calls(executor) {}
  grpc::ServerBidiReactor<fetcher::v1::SubscribeRequest, fetcher::v1::SubscribeResponse>* Subscribe(
      grpc::CallbackServerContext*) override {
    return Stream::Run(stream, calls, Nothing());
  }
  const std::shared_ptr<Stream> stream;
  async::TaskScope calls;

 private:
  static async::Task<grpc::Status> Nothing() { co_return grpc::Status::OK; }
};

async::Task<void> ReadInto(Stream& stream, std::optional<bool>& got) { got = (co_await stream.Read()).has_value(); }

TEST(Bidi, AReaderThatOutlivesTheCallReadsNothing) {
  async::Runtime runtime(2);
  EndsAtOnce service(runtime.executor());
  grpc::ServerBuilder builder;
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  {
    auto stub = fetcher::v1::TicketFeedService::NewStub(server->InProcessChannel({}));
    grpc::ClientContext context;
    auto call = stub->Subscribe(&context);
    fetcher::v1::SubscribeResponse response;
    EXPECT_FALSE(call->Read(&response));
    EXPECT_TRUE(call->Finish().ok());
  }
  server->Shutdown();
  server->Wait();
  service.calls.JoinBlocking();
  std::optional<bool> got;
  async::RunBlocking(runtime.executor(), ReadInto(*service.stream, got));
  EXPECT_EQ(got, false);
}

}  // namespace
}  // namespace poststelle::rpc
