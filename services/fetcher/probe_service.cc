#include "services/fetcher/probe_service.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "libs/base/host_name.h"
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

}  // namespace poststelle::fetcher
