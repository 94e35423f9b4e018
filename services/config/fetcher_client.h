// What config asks a fetcher for, which may touch the network.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "libs/async/runtime.h"
#include "poststelle/fetcher/v1/probe_service.grpc.pb.h"

namespace poststelle::config {

// How a domain's mail servers are announced. Seam for tests. Thread-safe.
class ServerLookup {
 public:
  virtual ~ServerLookup() = default;
  // `domain` in ASCII form. An error of any kind: nothing could be found out in reasonable time.
  virtual async::Task<absl::StatusOr<fetcher::v1::LookUpServersResponse>> LookUpServers(std::string domain) = 0;
};

// A fetcher's ProbeService. Thread-safe.
class FetcherClient : public ServerLookup {
 public:
  // `channel` null: there is no fetcher, every call fails with kUnavailable. A look-up takes at most `lookup_timeout`.
  FetcherClient(asio::any_io_executor executor, const std::shared_ptr<grpc::Channel>& channel,
                absl::Duration lookup_timeout);
  async::Task<absl::StatusOr<fetcher::v1::LookUpServersResponse>> LookUpServers(std::string domain) override;

 private:
  const asio::any_io_executor executor_;
  const absl::Duration lookup_timeout_;
  const std::unique_ptr<fetcher::v1::ProbeService::Stub> stub_;  // null without a channel
};

}  // namespace poststelle::config
