// Channels to other services, and calls that a coroutine awaits.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "libs/async/runtime.h"

namespace poststelle::rpc {

// A channel with keepalive that reconnects by itself. With `token_file` every call on it brings the token that the file
// holds at that moment; while there is none, calls go without, which the log says. The connection is in clear text: the
// token is as safe as the network to `address` is.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, const std::string& token_file = "");

// Whether a channel to `address` stays on this machine.
bool StaysOnThisMachine(const std::string& address);

// Starts a callback call and waits for its end. `start` receives the callback to hand to the stub; what it refers to
// (context, request, response) lives on the awaiting frame, so the wait is not given up on cancellation: the call's
// deadline bounds it.
async::Task<grpc::Status> Await(asio::any_io_executor executor,
                                std::function<void(std::function<void(grpc::Status)>)> start);

}  // namespace poststelle::rpc
