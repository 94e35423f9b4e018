#include "services/sender/probe_service.h"

#include "libs/base/text.h"
#include "libs/probe/request.h"
#include "libs/probe/step_stream.h"

namespace poststelle::sender {
namespace {

constexpr size_t kMaxRecipient = 254;  // RFC 5321 §4.5.3.1.3, without the brackets

using ProbeStream = rpc::StreamOut<v1::ProbeResponse>;

async::Task<grpc::Status> Stream(ProbeContext& context, const v1::ProbeRequest& request, asio::any_io_executor executor,
                                 std::shared_ptr<ProbeStream> out) {
  std::vector<rpc::Violation> violations;
  if (HasControl(request.test_recipient()) || request.test_recipient().size() > kMaxRecipient) {
    rpc::Violation violation;
    violation.field = "test_recipient";
    violation.description = "must be a mail address, at most 254 bytes";
    violations.push_back(std::move(violation));
  }
  const grpc::Status good =
      probe::CheckMailbox(request.mailbox(), config::v1::Mailbox::DIRECTION_OUTBOUND, std::move(violations));
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
