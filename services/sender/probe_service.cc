#include "services/sender/probe_service.h"

#include "libs/probe/request.h"
#include "libs/probe/step_stream.h"

namespace poststelle::sender {
namespace {

using ProbeStream = rpc::StreamOut<v1::ProbeResponse>;

async::Task<grpc::Status> Stream(ProbeContext& context, const v1::ProbeRequest& request, asio::any_io_executor executor,
                                 std::shared_ptr<ProbeStream> out) {
  const grpc::Status good = probe::CheckMailbox(request.mailbox(), config::v1::Mailbox::DIRECTION_OUTBOUND);
  if (!good.ok()) co_return good;
  std::function<async::Task<void>(probe::StepLog&)> test = [&](probe::StepLog& log) -> async::Task<void> {
    ProbeRun run(context, request.mailbox(), log);
    co_await run.Test(request.test_recipient());
  };
  co_return co_await probe::StreamSteps(executor, out, request.mailbox(), test);
}

}  // namespace

grpc::ServerWriteReactor<v1::ProbeResponse>* ProbeService::Probe(grpc::CallbackServerContext* context,
                                                                 const v1::ProbeRequest* request) {
  auto stream = std::make_shared<ProbeStream>(gate_.executor());
  return ProbeStream::Run(stream, context, gate_, *request, Stream(context_, *request, gate_.executor(), stream));
}

}  // namespace poststelle::sender
