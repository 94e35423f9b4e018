// Looking a name up and connecting, told as steps.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"
#include "libs/net/dialer.h"
#include "libs/probe/step_log.h"

namespace poststelle::probe {

// Connects to `host`, whose name look-up is the step that `log` is at; goes on to KIND_CONNECT once the addresses are
// known. Errors as net::Dialer::Dial, at the step where they belong; `log` is not told of them.
async::Task<absl::StatusOr<std::unique_ptr<net::Stream>>> Dial(net::Dialer& dialer, std::string host, uint16_t port,
                                                               absl::Duration timeout, StepLog& log);

}  // namespace poststelle::probe
