#include "services/fetcher/probe_service.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "libs/base/host_name.h"
#include "libs/probe/request.h"
#include "libs/probe/step_stream.h"
#include "libs/rpc/unary.h"
#include "services/fetcher/server_lookup.h"

namespace poststelle::fetcher {
namespace {

constexpr absl::Duration kLongestLookUp = absl::Seconds(30);

// Less than the caller waits, so that what was found reaches it in time.
absl::Duration LookUpTimeout(const grpc::CallbackServerContext& context) {
  const absl::Duration left = absl::FromChrono(context.deadline()) - absl::Now();
  return std::clamp(left * 0.8, absl::Milliseconds(1), kLongestLookUp);
}

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

grpc::ServerUnaryReactor* ProbeService::LookUpServers(grpc::CallbackServerContext* context,
                                                      const v1::LookUpServersRequest* request,
                                                      v1::LookUpServersResponse* response) {
  return rpc::Unary(context, gate_, *request, LookUp(LookUpTimeout(*context), *request, *response));
}

async::Task<grpc::Status> ProbeService::LookUp(absl::Duration timeout, const v1::LookUpServersRequest& request,
                                               v1::LookUpServersResponse& response) {
  if (!IsHostName(request.domain())) {
    co_return rpc::InvalidFields({{"domain", "must be a domain in ASCII form, like example.org"}});
  }
  auto found = co_await fetcher::LookUpServers(gate_.executor(), records_, request.domain(), timeout);
  if (!found.ok()) co_return rpc::FromAbsl(found.status());
  response = *std::move(found);
  co_return grpc::Status::OK;
}

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
