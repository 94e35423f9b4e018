// ProbeService over gRPC: tests on behalf of config.
#pragma once

#include "libs/rpc/gate.h"
#include "poststelle/sender/v1/probe_service.grpc.pb.h"
#include "services/sender/probe_run.h"

namespace poststelle::sender {

class ProbeService : public v1::ProbeService::CallbackService {
 public:
  ProbeService(const rpc::Gate& gate, ProbeContext& context) : gate_(gate), context_(context) {}
  grpc::ServerWriteReactor<v1::ProbeResponse>* Probe(grpc::CallbackServerContext* context,
                                                     const v1::ProbeRequest* request) override;

 private:
  const rpc::Gate& gate_;
  ProbeContext& context_;
};

}  // namespace poststelle::sender
