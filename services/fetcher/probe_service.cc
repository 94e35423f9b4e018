#include "services/fetcher/probe_service.h"

#include "libs/probe/request.h"
#include "libs/probe/step_stream.h"
#include "libs/rpc/unary.h"

namespace poststelle::fetcher {
namespace {

using ProbeStream = rpc::StreamOut<v1::ProbeResponse>;

async::Task<grpc::Status> Stream(ProbeContext& context, const config::v1::Mailbox& mailbox,
                                 asio::any_io_executor executor, std::shared_ptr<ProbeStream> out) {
  const grpc::Status good = probe::CheckMailbox(mailbox, config::v1::Mailbox::DIRECTION_INBOUND);
  if (!good.ok()) co_return good;
  std::function<async::Task<void>(probe::StepLog&)> test = [&](probe::StepLog& log) -> async::Task<void> {
    ProbeRun run(context, mailbox, log);
    co_await run.Test();
  };
  co_return co_await probe::StreamSteps(executor, out, mailbox, test);
}

}  // namespace

grpc::ServerWriteReactor<v1::ProbeResponse>* ProbeService::Probe(grpc::CallbackServerContext* context,
                                                                 const v1::ProbeRequest* request) {
  auto stream = std::make_shared<ProbeStream>(gate_.executor());
  return ProbeStream::Run(stream, context, gate_, *request,
                          Stream(context_, request->mailbox(), gate_.executor(), stream));
}

grpc::ServerUnaryReactor* ProbeService::Preview(grpc::CallbackServerContext* context, const v1::PreviewRequest* request,
                                                v1::PreviewResponse* response) {
  return rpc::Unary(context, gate_, *request, DoPreview(*request, *response));
}

async::Task<grpc::Status> ProbeService::DoPreview(const v1::PreviewRequest& request, v1::PreviewResponse& response) {
  const grpc::Status good = probe::CheckMailbox(request.mailbox(), config::v1::Mailbox::DIRECTION_INBOUND);
  if (!good.ok()) co_return good;
  probe::StepLog log(request.mailbox(), nullptr);
  ProbeRun run(context_, request.mailbox(), log);
  absl::StatusOr<config::v1::PreviewMailboxResponse> preview = co_await run.Preview();
  if (log.failed()) co_return probe::TestFailed(log.step());
  if (!preview.ok()) co_return rpc::FromAbsl(preview.status());
  *response.mutable_preview() = *std::move(preview);
  co_return grpc::Status::OK;
}

}  // namespace poststelle::fetcher
