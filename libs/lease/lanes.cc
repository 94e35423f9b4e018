#include "libs/lease/lanes.h"

#include <algorithm>
#include <mutex>

namespace poststelle::lease {
namespace {

struct Round {
  Round(const asio::any_io_executor& executor, std::vector<int> s,
        const std::function<async::Task<absl::Status>(int)>& w)
      : shards(std::move(s)), work(w), ended(executor) {}
  const std::vector<int> shards;
  const std::function<async::Task<absl::Status>(int)>& work;
  async::Event ended;
  std::mutex mutex;
  size_t next = 0;      // guarded by mutex
  int open = 0;         // guarded by mutex: lanes that have not ended
  absl::Status status;  // guarded by mutex
};

async::Task<void> Lane(Round& round) {
  absl::Status last;
  while (true) {
    size_t at = 0;
    {
      std::lock_guard lock(round.mutex);
      round.status.Update(last);
      if (round.next == round.shards.size() || absl::IsCancelled(last)) {
        --round.open;
        break;
      }
      at = round.next++;
    }
    last = co_await round.work(round.shards[at]);
  }
  round.ended.Notify();
}

}  // namespace

async::Task<absl::Status> InLanes(asio::any_io_executor executor, std::vector<int> shards, int lanes,
                                  const std::function<async::Task<absl::Status>(int)>& work) {
  if (shards.empty()) co_return absl::OkStatus();
  if (shards.size() == 1) co_return co_await work(shards[0]);
  Round round(executor, std::move(shards), work);
  round.open = std::min(lanes, static_cast<int>(round.shards.size()));
  async::TaskScope scope(executor);
  for (int i = round.open; i > 0; --i) scope.Spawn(Lane(round));
  while (true) {
    {
      std::lock_guard lock(round.mutex);
      if (round.open == 0) break;
    }
    // Join alone would not see a cancellation of the caller.
    const absl::Status woken = co_await round.ended.Wait(absl::Seconds(10));
    if (absl::IsCancelled(woken)) {
      scope.Cancel();
      std::lock_guard lock(round.mutex);
      round.status = woken;
      break;
    }
  }
  co_await scope.Join();
  co_return round.status;
}

}  // namespace poststelle::lease
