// Channels to other services, and calls that a coroutine awaits.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "libs/async/runtime.h"
#include "libs/base/secret_string.h"

namespace poststelle::rpc {

// A channel with keepalive that reconnects by itself.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address);

// Adds "authorization: Bearer …".
void Authorize(grpc::ClientContext& context, const SecretString& token);

// Starts a callback call and waits for its end. `start` receives the callback to hand to the stub; what it refers to
// (context, request, response) lives on the awaiting frame, so the wait is not given up on cancellation: the call's
// deadline bounds it.
async::Task<grpc::Status> Await(asio::any_io_executor executor,
                                std::function<void(std::function<void(grpc::Status)>)> start);

}  // namespace poststelle::rpc
