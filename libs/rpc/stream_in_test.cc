#include "libs/rpc/stream_in.h"

#include <gtest/gtest.h>

#include "libs/rpc/access.h"
#include "libs/rpc/server_stream.h"
#include "poststelle/config/v1/mailbox_service.grpc.pb.h"

namespace poststelle::rpc {
namespace {

using config::v1::TestMailboxRequest;
using config::v1::TestMailboxResponse;
using Out = StreamOut<TestMailboxResponse>;
using In = StreamIn<TestMailboxResponse>;

constexpr int kMessages = 5;

// Writes some messages and ends the call behind the last one, or waits for the client to go.
class Steps : public config::v1::MailboxService::CallbackService {
 public:
  explicit Steps(const asio::any_io_executor& executor) : gate(executor, *access) { gate.Open(); }
  grpc::ServerWriteReactor<TestMailboxResponse>* TestMailbox(grpc::CallbackServerContext* context,
                                                             const TestMailboxRequest* request) override {
    const auto out = std::make_shared<Out>(gate.executor());
    return Out::Run(out, context, gate, *request, Write(out, request->has_mailbox()));
  }
  const std::unique_ptr<Access> access = Access::Unguarded();
  Gate gate;

 private:
  static async::Task<grpc::Status> Write(std::shared_ptr<Out> out, bool endless) {
    TestMailboxResponse response;
    for (int n = 0; n < kMessages; ++n) {
      response.mutable_step()->set_detail(std::to_string(n));
      const bool written = co_await out->Write(response);
      if (!written) break;
    }
    bool gone = !endless;
    while (!gone) gone = co_await out->WaitOrCancelled(absl::Seconds(1));
    co_return grpc::Status(grpc::StatusCode::ABORTED, "the end");
  }
};

async::Task<void> ReadAll(asio::any_io_executor executor, config::v1::MailboxService::Stub& stub, bool cancel,
                          std::vector<std::string>& got, grpc::Status& status) {
  const auto in = std::make_shared<In>(executor);
  TestMailboxRequest request;
  if (cancel) request.mutable_mailbox();
  stub.async()->TestMailbox(&in->context(), &request, in.get());
  In::Begin(in);
  TestMailboxResponse response;
  In::Event event = In::Event::kNothing;
  while (event != In::Event::kEnd) {
    event = co_await in->Read(response, absl::Seconds(10));
    if (event == In::Event::kMessage) got.push_back(response.step().detail());
    if (cancel && got.size() == kMessages) in->context().TryCancel();
  }
  status = in->status();
}

// What ends right behind its last message is where a read that begins outside of gRPC's callbacks can come too late.
TEST(StreamIn, EveryMessageAndTheEndArriveHoweverTheyMeet) {
  async::Runtime runtime(4);
  Steps service(runtime.executor());
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  const auto channel = grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials());
  auto stub = config::v1::MailboxService::NewStub(channel);
  for (int round = 0; round < 40; ++round) {
    const bool cancel = round % 4 == 3;
    std::vector<std::vector<std::string>> got(25);
    std::vector<grpc::Status> status(got.size());
    async::TaskScope calls(runtime.executor());
    for (size_t n = 0; n < got.size(); ++n) {
      calls.Spawn(ReadAll(runtime.executor(), *stub, cancel, got[n], status[n]));
    }
    calls.JoinBlocking();
    for (size_t n = 0; n < got.size(); ++n) {
      EXPECT_EQ(got[n], (std::vector<std::string>{"0", "1", "2", "3", "4"}));
      EXPECT_EQ(status[n].error_code(), cancel ? grpc::StatusCode::CANCELLED : grpc::StatusCode::ABORTED);
    }
  }
  server->Shutdown();
  server->Wait();
}

}  // namespace
}  // namespace poststelle::rpc
