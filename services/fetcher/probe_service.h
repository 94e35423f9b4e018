// ProbeService over gRPC: tests, previews and look-ups on behalf of config.
#pragma once

#include "libs/net/dns_records.h"
#include "libs/rpc/gate.h"
#include "poststelle/fetcher/v1/probe_service.grpc.pb.h"
#include "services/fetcher/probe_run.h"

namespace poststelle::fetcher {

class ProbeService : public v1::ProbeService::CallbackService {
 public:
  ProbeService(const rpc::Gate& gate, ProbeContext& context, net::DnsRecords& records)
      : gate_(gate), context_(context), records_(records) {}

  grpc::ServerWriteReactor<v1::ProbeResponse>* Probe(grpc::CallbackServerContext* context,
                                                     const v1::ProbeRequest* request) override;
  grpc::ServerUnaryReactor* Preview(grpc::CallbackServerContext* context, const v1::PreviewRequest* request,
                                    v1::PreviewResponse* response) override;
  grpc::ServerUnaryReactor* LookUpServers(grpc::CallbackServerContext* context, const v1::LookUpServersRequest* request,
                                          v1::LookUpServersResponse* response) override;

 private:
  async::Task<grpc::Status> DoPreview(const v1::PreviewRequest& request, v1::PreviewResponse& response);
  async::Task<grpc::Status> LookUp(absl::Duration timeout, const v1::LookUpServersRequest& request,
                                   v1::LookUpServersResponse& response);
  const rpc::Gate& gate_;
  ProbeContext& context_;
  net::DnsRecords& records_;
};

}  // namespace poststelle::fetcher
