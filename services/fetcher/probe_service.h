// ProbeService over gRPC: translates, nothing else.
#pragma once

#include "libs/net/dns_records.h"
#include "libs/rpc/gate.h"
#include "poststelle/fetcher/v1/probe_service.grpc.pb.h"

namespace poststelle::fetcher {

class ProbeService : public v1::ProbeService::CallbackService {
 public:
  ProbeService(const rpc::Gate& gate, net::DnsRecords& records) : gate_(gate), records_(records) {}

  grpc::ServerUnaryReactor* LookUpServers(grpc::CallbackServerContext* context, const v1::LookUpServersRequest* request,
                                          v1::LookUpServersResponse* response) override;

 private:
  async::Task<grpc::Status> LookUp(absl::Duration timeout, const v1::LookUpServersRequest& request,
                                   v1::LookUpServersResponse& response);
  const rpc::Gate& gate_;
  net::DnsRecords& records_;
};

}  // namespace poststelle::fetcher
