// One look of a worker at the whole schedule.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "libs/lease/schedule.h"

namespace poststelle::lease {

// What a worker is asked while it claims. `wanted` and `hungry` just before each shard, `take` with what it got; from
// several coroutines at once.
struct Claimant {
  std::function<int()> wanted;  // members it has room for, in one shard
  std::function<bool()> hungry;
  std::function<async::Task<void>(ClaimResult&)> take;
};

// The shards together.
struct ClaimTotals {
  int64_t members = 0;
  int64_t held = 0;
  int workers = 1;
  bool wiped = false;  // any of the shards
  std::optional<absl::Duration> next_due_in;
};

// Claims in each shard, up to `at_once` of them at a time: a slow answer of Redis then costs the round its time once
// and not sixteen times. An error is the first one of any shard; the others were asked all the same.
async::Task<absl::StatusOr<ClaimTotals>> ClaimRound(asio::any_io_executor executor, Schedule& schedule,
                                                    const Claimant& claimant, int at_once);

}  // namespace poststelle::lease
