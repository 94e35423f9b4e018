#include "libs/lease/claim_round.h"

#include <algorithm>
#include <mutex>

#include "libs/base/status_macros.h"
#include "libs/lease/lanes.h"

namespace poststelle::lease {

async::Task<absl::StatusOr<ClaimTotals>> ClaimRound(asio::any_io_executor executor, Schedule& schedule,
                                                    const Claimant& claimant, int at_once) {
  std::mutex mutex;
  ClaimTotals totals;  // guarded by mutex
  std::function<async::Task<absl::Status>(int)> one = [&](int shard) -> async::Task<absl::Status> {
    const int wanted = claimant.wanted();
    const bool hungry = claimant.hungry();
    PS_CO_ASSIGN_OR_RETURN(ClaimResult claimed, co_await schedule.Claim(shard, wanted, hungry));
    {
      std::lock_guard lock(mutex);
      totals.members += claimed.members;
      totals.held += claimed.held;
      totals.workers = std::max(totals.workers, claimed.workers);
      totals.wiped = totals.wiped || claimed.wiped;
      if (claimed.next_due_in) {
        totals.next_due_in = std::min(*claimed.next_due_in, totals.next_due_in.value_or(absl::InfiniteDuration()));
      }
    }
    co_await claimant.take(claimed);
    co_return absl::OkStatus();
  };
  std::vector<int> shards;
  for (int shard = 0; shard < kShards; ++shard) shards.push_back(shard);
  PS_CO_RETURN_IF_ERROR(co_await InLanes(std::move(executor), std::move(shards), at_once, one));
  co_return totals;
}

}  // namespace poststelle::lease
