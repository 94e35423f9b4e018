#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "libs/base/reason.h"
#include "libs/rpc/access.h"
#include "libs/rpc/bidi.h"
#include "libs/rpc/drain.h"
#include "libs/rpc/options.h"
#include "libs/rpc/page_token.h"
#include "libs/rpc/server_stream.h"
#include "libs/rpc/status.h"
#include "libs/rpc/unary.h"
#include "poststelle/fetcher/v1/message_service.grpc.pb.h"
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

// What --networks takes from these arguments; "wrong" is refused.
std::pair<std::optional<int>, std::vector<std::string>> ParseList(std::vector<std::string> arguments) {
  Options options("demo", "A demo.");
  std::vector<std::string> taken;
  options.List("--networks", "Networks", [&taken](const std::string& entry) {
    if (entry == "wrong") return absl::InvalidArgumentError("\"wrong\" is wrong");
    taken.push_back(entry);
    return absl::OkStatus();
  });
  arguments.insert(arguments.begin(), "demo");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  const std::optional<int> exit_code = options.Parse(static_cast<int>(argv.size()), argv.data());
  return {exit_code, taken};
}

TEST(Options, AListIsRepeatedOrSeparatedByCommas) {
  const std::vector<std::string> both = {"10.0.0.0/8", "[::1]:993"};
  EXPECT_EQ(ParseList({}).second.size(), 0u);
  EXPECT_EQ(ParseList({"--networks=10.0.0.0/8,[::1]:993"}).second, both);
  EXPECT_EQ(ParseList({"--networks", "10.0.0.0/8", "--networks", "[::1]:993"}).second, both);
  setenv("POSTSTELLE_DEMO_NETWORKS", "10.0.0.0/8,[::1]:993", 1);
  EXPECT_EQ(ParseList({}).second, both);
  EXPECT_EQ(ParseList({"--networks=::1"}).second, std::vector<std::string>{"::1"});
  setenv("POSTSTELLE_DEMO_NETWORKS", "", 1);
  EXPECT_EQ(ParseList({}), std::pair(std::optional<int>(), std::vector<std::string>()));
  unsetenv("POSTSTELLE_DEMO_NETWORKS");
  testing::internal::CaptureStderr();
  EXPECT_EQ(ParseList({"--networks=a,wrong"}).first, 2);
  EXPECT_EQ(testing::internal::GetCapturedStderr().substr(0, 29), "--networks: \"wrong\" is wrong\n");
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

TEST(Options, OnlyTheDrainDelayMayBeNothing) {
  for (const auto& [argument, exit_code] : std::map<std::string, std::optional<int>>{
           {"--drain-delay=0s", std::nullopt}, {"--drain-delay=-1s", 2}, {"--drain-timeout=0s", 2}}) {
    Options options("demo", "A demo.");
    std::string program = "demo";
    std::string flag = argument;
    char* argv[] = {program.data(), flag.data()};
    testing::internal::CaptureStderr();
    EXPECT_EQ(options.Parse(2, argv), exit_code) << argument;
    testing::internal::GetCapturedStderr();
  }
}

TEST(DrainWatchDeathTest, NamesWhatStillRanWhenTimeIsUp) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto hang = [] {
    DrainWatch watch(absl::Milliseconds(50), {"polls", "commits", "calls"});
    watch.Done();
    absl::SleepFor(absl::Minutes(5));
  };
  EXPECT_EXIT(hang(), testing::ExitedWithCode(1), "\"service.drain_timeout\".*\"commits, calls\"");
}

TEST(DrainWatch, LeavesAlone) {
  DrainWatch watch(absl::Minutes(5), {"polls"});
  watch.Done();
}

using Stream = Bidi<fetcher::v1::SubscribeRequest, fetcher::v1::SubscribeResponse>;

class EndsAtOnce : public fetcher::v1::TicketFeedService::CallbackService {
 public:
  explicit EndsAtOnce(const asio::any_io_executor& executor) : gate(executor, *access), calls(executor) {}
  grpc::ServerBidiReactor<fetcher::v1::SubscribeRequest, fetcher::v1::SubscribeResponse>* Subscribe(
      grpc::CallbackServerContext* context) override {
    stream = std::make_shared<Stream>(gate.executor());
    return Stream::Run(stream, calls, context, gate, Nothing());
  }
  const std::unique_ptr<Access> access = Access::Unguarded();
  Gate gate;
  std::shared_ptr<Stream> stream;  // of the last call
  async::TaskScope calls;

 private:
  static async::Task<grpc::Status> Nothing() { co_return grpc::Status::OK; }
};

// Answers GetTicket, and counts.
class Tickets : public fetcher::v1::TicketFeedService::CallbackService {
 public:
  explicit Tickets(const asio::any_io_executor& executor) : gate(executor, *access) {}
  grpc::ServerUnaryReactor* GetTicket(grpc::CallbackServerContext* context,
                                      const fetcher::v1::GetTicketRequest* request,
                                      fetcher::v1::GetTicketResponse*) override {
    return Unary(context, gate, *request, Count());
  }
  const std::unique_ptr<Access> access = Access::Unguarded();
  Gate gate;
  std::atomic<int> calls{0};

 private:
  async::Task<grpc::Status> Count() {
    ++calls;
    co_return grpc::Status::OK;
  }
};

TEST(Gate, UntilItOpensCallsAreToldToComeAgain) {
  async::Runtime runtime(2);
  Tickets service(runtime.executor());
  grpc::ServerBuilder builder;
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  auto stub = fetcher::v1::TicketFeedService::NewStub(server->InProcessChannel({}));
  const auto call = [&stub] {
    grpc::ClientContext context;
    fetcher::v1::GetTicketResponse response;
    return stub->GetTicket(&context, {}, &response);
  };
  const grpc::Status refused = call();
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonOf(refused), "NOT_READY");
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(refused.error_details()));
  google::rpc::RetryInfo retry;
  ASSERT_EQ(details.details_size(), 2);
  EXPECT_TRUE(details.details(1).UnpackTo(&retry));
  EXPECT_GT(retry.retry_delay().seconds(), 0);
  EXPECT_EQ(service.calls, 0);
  service.gate.Open();
  EXPECT_TRUE(call().ok());
  EXPECT_EQ(service.calls, 1);
}

async::Task<void> ReadInto(Stream& stream, std::optional<bool>& got) { got = (co_await stream.Read()).has_value(); }

TEST(Bidi, AReaderThatOutlivesTheCallReadsNothing) {
  async::Runtime runtime(2);
  EndsAtOnce service(runtime.executor());
  grpc::ServerBuilder builder;
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  for (const bool open : {false, true}) {
    if (open) service.gate.Open();
    auto stub = fetcher::v1::TicketFeedService::NewStub(server->InProcessChannel({}));
    grpc::ClientContext context;
    auto call = stub->Subscribe(&context);
    fetcher::v1::SubscribeResponse response;
    EXPECT_FALSE(call->Read(&response));
    EXPECT_EQ(call->Finish().error_code(), open ? grpc::StatusCode::OK : grpc::StatusCode::UNAVAILABLE);
  }
  server->Shutdown();
  server->Wait();
  service.calls.JoinBlocking();
  std::optional<bool> got;
  async::RunBlocking(runtime.executor(), ReadInto(*service.stream, got));
  EXPECT_EQ(got, false);
}

using Download = StreamOut<fetcher::v1::DownloadRawResponse>;

async::Task<grpc::Status> SendBatches(std::shared_ptr<Download> stream, int batches, int each) {
  for (int batch = 0; batch < batches; ++batch) {
    std::vector<fetcher::v1::DownloadRawResponse> responses(static_cast<size_t>(each));
    std::vector<const fetcher::v1::DownloadRawResponse*> all;
    for (int i = 0; i < each; ++i) {
      responses[static_cast<size_t>(i)].set_offset(batch * each + i);
      all.push_back(&responses[static_cast<size_t>(i)]);
    }
    const bool sent = co_await stream->WriteAll(std::move(all));
    if (!sent) co_return grpc::Status::CANCELLED;
  }
  co_return grpc::Status::OK;
}

class Downloads : public fetcher::v1::MessageService::CallbackService {
 public:
  Downloads(const asio::any_io_executor& executor, int batches, int each)
      : gate(executor, *access), batches_(batches), each_(each) {
    gate.Open();
  }
  grpc::ServerWriteReactor<fetcher::v1::DownloadRawResponse>* DownloadRaw(
      grpc::CallbackServerContext* context, const fetcher::v1::DownloadRawRequest* request) override {
    auto stream = std::make_shared<Download>(gate.executor());
    return Download::Run(stream, context, gate, *request, SendBatches(stream, batches_, each_));
  }
  const std::unique_ptr<Access> access = Access::Unguarded();
  Gate gate;

 private:
  const int batches_, each_;
};

TEST(StreamOut, BatchesArriveWholeAndInOrder) {
  async::Runtime runtime(2);
  for (const int each : {0, 1, 100}) {
    Downloads service(runtime.executor(), 5, each);
    grpc::ServerBuilder builder;
    builder.RegisterService(&service);
    const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
    auto stub = fetcher::v1::MessageService::NewStub(server->InProcessChannel({}));
    grpc::ClientContext context;
    auto call = stub->DownloadRaw(&context, {});
    fetcher::v1::DownloadRawResponse response;
    int64_t seen = 0;
    while (call->Read(&response)) EXPECT_EQ(response.offset(), seen++);
    EXPECT_TRUE(call->Finish().ok());
    EXPECT_EQ(seen, 5 * each);
    server->Shutdown();
  }
}

TEST(StreamOut, ABatchEndsWhenTheClientLeaves) {
  async::Runtime runtime(2);
  Downloads service(runtime.executor(), 1, 100'000);
  grpc::ServerBuilder builder;
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  auto stub = fetcher::v1::MessageService::NewStub(server->InProcessChannel({}));
  grpc::ClientContext context;
  auto call = stub->DownloadRaw(&context, {});
  fetcher::v1::DownloadRawResponse response;
  EXPECT_TRUE(call->Read(&response));
  context.TryCancel();
  EXPECT_EQ(call->Finish().error_code(), grpc::StatusCode::CANCELLED);
  server->Shutdown();  // returns when every call is over
}

}  // namespace
}  // namespace poststelle::rpc
