// The services that speak to mail servers on behalf of config.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

#include "libs/async/runtime.h"
#include "libs/rpc/server_stream.h"
#include "poststelle/config/v1/mailbox_service.pb.h"
#include "poststelle/fetcher/v1/probe_service.grpc.pb.h"
#include "poststelle/sender/v1/probe_service.grpc.pb.h"

namespace poststelle::config {

using TestStream = rpc::StreamOut<v1::TestMailboxResponse>;

// Whether the server's own words go along.
enum class ServerWords { kShown, kLeftOut };

// Thread-safe. A service that can't be reached, or does not let us in, is UNAVAILABLE with reason FETCHER_UNAVAILABLE
// or SENDER_UNAVAILABLE.
class ProbeClients {
 public:
  // A null channel: there is no such service.
  ProbeClients(asio::any_io_executor executor, const std::shared_ptr<grpc::Channel>& fetcher,
               const std::shared_ptr<grpc::Channel>& sender);

  // Tests `mailbox`, which holds its password, by the service of its direction, and passes on each step.
  async::Task<grpc::Status> Test(const v1::Mailbox& mailbox, const std::string& recipient, ServerWords words,
                                 TestStream& out);
  async::Task<grpc::Status> Preview(const v1::Mailbox& mailbox, ServerWords words, v1::PreviewMailboxResponse& out);

 private:
  template <typename Request, typename Response, typename Stub>
  async::Task<grpc::Status> Forward(Stub& stub, const Request& request, ServerWords words, TestStream& out);

  const asio::any_io_executor executor_;
  const std::unique_ptr<fetcher::v1::ProbeService::Stub> fetcher_;
  const std::unique_ptr<sender::v1::ProbeService::Stub> sender_;
};

}  // namespace poststelle::config
