#include "libs/rpc/malformed.h"

#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <future>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "libs/rpc/access.h"
#include "libs/rpc/bidi.h"
#include "libs/rpc/server_stream.h"
#include "libs/rpc/status.h"
#include "libs/rpc/unary.h"
#include "poststelle/fetcher/v1/message_service.grpc.pb.h"
#include "poststelle/fetcher/v1/ticket_feed_service.grpc.pb.h"

namespace poststelle::rpc {
namespace {

constexpr char kGetTicket[] = "/poststelle.fetcher.v1.TicketFeedService/GetTicket";
constexpr char kSubscribe[] = "/poststelle.fetcher.v1.TicketFeedService/Subscribe";
constexpr char kDownload[] = "/poststelle.fetcher.v1.MessageService/DownloadRaw";
const std::string kCutOff = "\x0A\x05x";           // field 1 has five bytes, and one is there
const std::string kNoUtf8 = "\x0A\x01\xFF";        // field 1, a string
const std::string kUnknownField = "\xF8\x7F\x01";  // a varint of number 2047
const std::string kUnknownThenCutOff = kUnknownField + kCutOff;

using Stream = Bidi<fetcher::v1::SubscribeRequest, fetcher::v1::SubscribeResponse>;
using Download = StreamOut<fetcher::v1::DownloadRawResponse>;

async::Task<grpc::Status> Nothing() { co_return grpc::Status::OK; }
async::Task<grpc::Status> ReadAll(std::shared_ptr<Stream> stream) {
  while ((co_await stream->Read()).has_value()) continue;
  co_return grpc::Status::OK;
}

class Feed : public fetcher::v1::TicketFeedService::CallbackService {
 public:
  Feed(const Gate& gate, async::TaskScope& calls) : gate_(gate), calls_(calls) {}
  grpc::ServerUnaryReactor* GetTicket(grpc::CallbackServerContext* context,
                                      const fetcher::v1::GetTicketRequest* request,
                                      fetcher::v1::GetTicketResponse*) override {
    return Unary(context, gate_, *request, Nothing());
  }
  grpc::ServerBidiReactor<fetcher::v1::SubscribeRequest, fetcher::v1::SubscribeResponse>* Subscribe(
      grpc::CallbackServerContext* context) override {
    auto stream = std::make_shared<Stream>(gate_.executor());
    return Stream::Run(stream, calls_, context, gate_, ReadAll(stream));
  }

 private:
  const Gate& gate_;
  async::TaskScope& calls_;
};

class Messages : public fetcher::v1::MessageService::CallbackService {
 public:
  explicit Messages(const Gate& gate) : gate_(gate) {}
  grpc::ServerWriteReactor<fetcher::v1::DownloadRawResponse>* DownloadRaw(
      grpc::CallbackServerContext* context, const fetcher::v1::DownloadRawRequest* request) override {
    return Download::Run(std::make_shared<Download>(gate_.executor()), context, gate_, *request, Nothing());
  }

 private:
  const Gate& gate_;
};

class Malformed : public testing::Test {
 protected:
  Malformed() {
    gate_.Open();
    grpc::ServerBuilder builder;
    builder.RegisterService(&feed_);
    builder.RegisterService(&messages_);
    AnswerMalformed(builder);
    server_ = builder.BuildAndStart();
    stub_ = std::make_unique<grpc::GenericStub>(server_->InProcessChannel({}));
  }
  ~Malformed() override {
    server_->Shutdown();
    server_->Wait();
    calls_.JoinBlocking();
  }

  // How a call of `method` ends that sends these messages and takes what comes.
  grpc::Status Call(const std::string& method, const std::vector<std::string>& messages) {
    struct Reactor : grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
      void OnWriteDone(bool ok) override {
        if (ok) Next();
      }
      void OnReadDone(bool ok) override {
        if (ok) StartRead(&received);
      }
      void OnDone(const grpc::Status& status) override { done.set_value(status); }
      void Next() {
        if (left.empty()) {
          StartWritesDone();
          return;
        }
        const grpc::Slice slice(left.front());
        left.erase(left.begin());
        sent = grpc::ByteBuffer(&slice, 1);
        StartWrite(&sent);
      }
      std::vector<std::string> left;
      grpc::ByteBuffer sent, received;
      std::promise<grpc::Status> done;
    };
    grpc::ClientContext context;
    Reactor reactor;
    reactor.left = messages;
    stub_->PrepareBidiStreamingCall(&context, method, {}, &reactor);
    reactor.Next();
    reactor.StartRead(&reactor.received);
    reactor.StartCall();
    return reactor.done.get_future().get();
  }

  void ExpectMalformed(const std::string& method, const std::vector<std::string>& messages) {
    const grpc::Status status = Call(method, messages);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << method;
    EXPECT_EQ(ReasonOf(status), "MALFORMED_REQUEST") << method;
    EXPECT_NE(status.error_message().find(method.substr(1)), std::string::npos) << status.error_message();
    google::rpc::Status details;
    ASSERT_TRUE(details.ParseFromString(status.error_details()));
    google::rpc::ErrorInfo info;
    ASSERT_EQ(details.details_size(), 1);
    ASSERT_TRUE(details.details(0).UnpackTo(&info));
    EXPECT_EQ(info.domain(), "poststelle");
    EXPECT_EQ(info.metadata().at("method"), method.substr(1));
  }

 private:
  async::Runtime runtime_{2};
  const std::unique_ptr<Access> access_ = Access::Unguarded();
  Gate gate_{runtime_.executor(), *access_};
  async::TaskScope calls_{runtime_.executor()};
  Feed feed_{gate_, calls_};
  Messages messages_{gate_};
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<grpc::GenericStub> stub_;
};

TEST_F(Malformed, ARequestThatCannotBeParsedIsTheCallersMistake) {
  for (const std::string& bytes : {kCutOff, kNoUtf8, kUnknownThenCutOff}) {
    ExpectMalformed(kGetTicket, {bytes});
    ExpectMalformed(kDownload, {bytes});
    ExpectMalformed(kSubscribe, {bytes});
    ExpectMalformed(kSubscribe, {kUnknownField, "", bytes});
  }
}

TEST_F(Malformed, WhatCanBeParsedIsServed) {
  for (const std::string& bytes : {std::string(), kUnknownField}) {
    EXPECT_TRUE(Call(kGetTicket, {bytes}).ok());
    EXPECT_TRUE(Call(kDownload, {bytes}).ok());
    EXPECT_TRUE(Call(kSubscribe, {bytes, bytes}).ok());
  }
  EXPECT_TRUE(Call(kSubscribe, {}).ok());
}

TEST_F(Malformed, AMethodThatIsNotServedIsNamed) {
  // One of a service that is there, which it does not implement; one that the service does not have; no service.
  for (const char* method : {"/poststelle.fetcher.v1.TicketFeedService/ListTickets",
                             "/poststelle.fetcher.v1.TicketFeedService/Nonsense", "/nonsense.Service/Get"}) {
    const grpc::Status status = Call(method, {""});
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED) << method;
    EXPECT_EQ(ReasonOf(status), "METHOD_UNKNOWN") << method;
    EXPECT_NE(status.error_message().find(method + 1), std::string::npos) << status.error_message();
  }
}

}  // namespace
}  // namespace poststelle::rpc
