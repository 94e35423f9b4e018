#include "services/config/probe_clients.h"

#include <chrono>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "libs/rpc/client.h"
#include "libs/rpc/status.h"
#include "libs/rpc/stream_in.h"

namespace poststelle::config {
namespace {

// More than the steps of a test may take together: a bound for what hangs, not for a mail server that is slow.
constexpr auto kDeadline = std::chrono::minutes(10);

// A call that the service itself has not answered: nobody is there, or we are not let in.
grpc::Status Explained(const grpc::Status& status, const std::string& service, ServerWords words) {
  switch (status.error_code()) {
    case grpc::StatusCode::OK:
      return status;
    case grpc::StatusCode::FAILED_PRECONDITION:
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::CANCELLED: {
      if (words == ServerWords::kShown) return status;
      std::map<std::string, std::string> metadata = rpc::MetadataOf(status);
      if (metadata.erase("server_words") == 0) return status;
      return rpc::Error(status.error_code(), rpc::ReasonOf(status), status.error_message(), metadata);
    }
    case grpc::StatusCode::UNAUTHENTICATED:
    case grpc::StatusCode::PERMISSION_DENIED:
      return rpc::Error(grpc::StatusCode::UNAVAILABLE,
                        service == "fetcher" ? "FETCHER_UNAVAILABLE" : "SENDER_UNAVAILABLE",
                        absl::StrCat("the ", service,
                                     " does not let config in: give config a token of the role service "
                                     "with --service-token-file"));
    default:
      return rpc::Error(grpc::StatusCode::UNAVAILABLE,
                        service == "fetcher" ? "FETCHER_UNAVAILABLE" : "SENDER_UNAVAILABLE",
                        absl::StrCat("the ", service, " can't do it now: ", status.error_message(),
                                     "; see that it runs, and that --", service, "-address of config names it"));
  }
}

grpc::Status Missing(const std::string& service) {
  return Explained(grpc::Status(grpc::StatusCode::UNAVAILABLE, "none is configured"), service, ServerWords::kLeftOut);
}

}  // namespace

ProbeClients::ProbeClients(asio::any_io_executor executor, const std::shared_ptr<grpc::Channel>& fetcher,
                           const std::shared_ptr<grpc::Channel>& sender)
    : executor_(std::move(executor)),
      fetcher_(fetcher == nullptr ? nullptr : fetcher::v1::ProbeService::NewStub(fetcher)),
      sender_(sender == nullptr ? nullptr : sender::v1::ProbeService::NewStub(sender)) {}

template <typename Request, typename Response, typename Stub>
async::Task<grpc::Status> ProbeClients::Forward(Stub& stub, const Request& request, ServerWords words,
                                                TestStream& out) {
  using Stream = rpc::StreamIn<Response>;
  const auto in = std::make_shared<Stream>(executor_);
  in->context().set_deadline(std::chrono::system_clock::now() + kDeadline);
  stub.async()->Probe(&in->context(), &request, in.get());
  Stream::Begin(in);
  Response step;
  v1::TestMailboxResponse response;
  while (true) {
    const typename Stream::Event event = co_await in->Read(step, absl::Seconds(1));
    if (event == Stream::Event::kEnd) break;
    if (out.cancelled()) in->context().TryCancel();
    if (event == Stream::Event::kNothing) continue;
    *response.mutable_step() = std::move(*step.mutable_step());
    if (words == ServerWords::kLeftOut) response.mutable_step()->clear_server_words();
    const bool written = co_await out.Write(response);
    if (!written) in->context().TryCancel();
  }
  co_return in->status();
}

async::Task<grpc::Status> ProbeClients::Test(const v1::Mailbox& mailbox, const std::string& recipient,
                                             ServerWords words, TestStream& out) {
  if (mailbox.direction() == v1::Mailbox::DIRECTION_OUTBOUND) {
    if (sender_ == nullptr) co_return Missing("sender");
    sender::v1::ProbeRequest request;
    *request.mutable_mailbox() = mailbox;
    request.set_test_recipient(recipient);
    const grpc::Status status =
        co_await Forward<sender::v1::ProbeRequest, sender::v1::ProbeResponse>(*sender_, request, words, out);
    co_return Explained(status, "sender", words);
  }
  if (fetcher_ == nullptr) co_return Missing("fetcher");
  fetcher::v1::ProbeRequest request;
  *request.mutable_mailbox() = mailbox;
  const grpc::Status status =
      co_await Forward<fetcher::v1::ProbeRequest, fetcher::v1::ProbeResponse>(*fetcher_, request, words, out);
  co_return Explained(status, "fetcher", words);
}

async::Task<grpc::Status> ProbeClients::Preview(const v1::Mailbox& mailbox, ServerWords words,
                                                v1::PreviewMailboxResponse& out) {
  if (fetcher_ == nullptr) co_return Missing("fetcher");
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kDeadline);
  fetcher::v1::PreviewRequest request;
  *request.mutable_mailbox() = mailbox;
  fetcher::v1::PreviewResponse response;
  auto start = [&](std::function<void(grpc::Status)> done) {
    fetcher_->async()->Preview(&context, &request, &response, std::move(done));
  };
  std::function<void(std::function<void(grpc::Status)>)> starter = start;
  const grpc::Status status = co_await rpc::Await(executor_, starter);
  if (status.ok()) out = std::move(*response.mutable_preview());
  co_return Explained(status, "fetcher", words);
}

}  // namespace poststelle::config
