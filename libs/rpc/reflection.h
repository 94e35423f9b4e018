// Server reflection, so that tools such as grpcurl know the API. Ours, because the library's own asks nobody who they
// are: here the gate does.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

#include "libs/async/runtime.h"
#include "libs/rpc/gate.h"

namespace poststelle::rpc {

// grpc.reflection.v1alpha over the descriptors that this program was built with, for every role.
class Reflection {
 public:
  explicit Reflection(const Gate& gate);
  ~Reflection();
  // Registers the service; it lists all services of the server that `builder` builds.
  void AddTo(grpc::ServerBuilder& builder);
  // After the server has shut down, while the gate's executor still runs: waits until the last call has ended.
  void Join();

 private:
  class Service;
  const std::unique_ptr<Service> service_;
};

}  // namespace poststelle::rpc
