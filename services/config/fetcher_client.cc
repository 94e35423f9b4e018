#include "services/config/fetcher_client.h"

#include "libs/base/reason.h"
#include "libs/rpc/client.h"
#include "libs/rpc/status.h"

namespace poststelle::config {

FetcherClient::FetcherClient(asio::any_io_executor executor, const std::shared_ptr<grpc::Channel>& channel,
                             absl::Duration lookup_timeout)
    : executor_(std::move(executor)),
      lookup_timeout_(lookup_timeout),
      stub_(channel == nullptr ? nullptr : fetcher::v1::ProbeService::NewStub(channel)) {}

async::Task<absl::StatusOr<fetcher::v1::LookUpServersResponse>> FetcherClient::LookUpServers(std::string domain) {
  if (stub_ == nullptr) {
    co_return WithReason(absl::UnavailableError("no fetcher is configured (--fetcher-address)"), "FETCHER_UNAVAILABLE");
  }
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(lookup_timeout_));
  fetcher::v1::LookUpServersRequest request;
  request.set_domain(std::move(domain));
  fetcher::v1::LookUpServersResponse response;
  auto start = [&](std::function<void(grpc::Status)> done) {
    stub_->async()->LookUpServers(&context, &request, &response, std::move(done));
  };
  std::function<void(std::function<void(grpc::Status)>)> starter = start;
  const grpc::Status status = co_await rpc::Await(executor_, starter);
  if (status.ok()) co_return response;
  const std::string reason = rpc::ReasonOf(status);
  co_return WithReason(absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message()),
                       reason.empty() ? "FETCHER_UNAVAILABLE" : reason);
}

}  // namespace poststelle::config
