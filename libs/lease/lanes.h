// The same work for several shards, some of them at a time.
#pragma once

#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "libs/async/runtime.h"

namespace poststelle::lease {

// Runs `work` for each of `shards`, in this order and at most `lanes` at a time, and waits for all of them: a failure
// is no reason to leave the others out. Returns the first error. Cancellation goes on to the work and ends the round.
// `work` and what it refers to outlive the call.
async::Task<absl::Status> InLanes(asio::any_io_executor executor, std::vector<int> shards, int lanes,
                                  const std::function<async::Task<absl::Status>(int)>& work);

}  // namespace poststelle::lease
