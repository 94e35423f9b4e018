// ProbeService over gRPC: tests and previews on behalf of config.
#pragma once

#include "libs/rpc/gate.h"
#include "poststelle/fetcher/v1/probe_service.grpc.pb.h"
#include "services/fetcher/probe_run.h"

namespace poststelle::fetcher {

class ProbeService : public v1::ProbeService::CallbackService {
 public:
  ProbeService(const rpc::Gate& gate, ProbeContext& context) : gate_(gate), context_(context) {}

  grpc::ServerWriteReactor<v1::ProbeResponse>* Probe(grpc::CallbackServerContext* context,
                                                     const v1::ProbeRequest* request) override;
  grpc::ServerUnaryReactor* Preview(grpc::CallbackServerContext* context, const v1::PreviewRequest* request,
                                    v1::PreviewResponse* response) override;

 private:
  async::Task<grpc::Status> DoPreview(const v1::PreviewRequest& request, v1::PreviewResponse& response);
  const rpc::Gate& gate_;
  ProbeContext& context_;
};

}  // namespace poststelle::fetcher
