// Hands a unary call over from gRPC's threads to a coroutine of ours.
#pragma once

#include <grpcpp/grpcpp.h>

#include "libs/async/runtime.h"
#include "libs/rpc/gate.h"

namespace poststelle::rpc {

inline async::Task<void> FinishWith(grpc::ServerUnaryReactor* reactor, async::Task<grpc::Status> handler) {
  reactor->Finish(co_await std::move(handler));
}

// Runs `handler` behind `gate` and finishes the call with its status. Request and response live until then. The type of
// the request tells the method, and with it the roles that it serves.
template <typename Request>
grpc::ServerUnaryReactor* Unary(grpc::CallbackServerContext* context, const Gate& gate, const Request&,
                                async::Task<grpc::Status> handler) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  async::Spawn(gate.executor(), FinishWith(reactor, gate.Admit<Request>(*context, std::move(handler))));
  return reactor;
}

}  // namespace poststelle::rpc
