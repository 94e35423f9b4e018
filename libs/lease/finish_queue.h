// Ends of polls on their way to the schedule.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "libs/lease/schedule.h"

namespace poststelle::lease {

// Tells the schedule of polls that ended, many at once. What it could not be told is told again with the next ones, or
// a second later: otherwise the mailbox would come back when its lease runs out, and a back-off would be lost. One
// entry a mailbox, so it grows with the mailboxes of this worker and not with the time that Redis is away. Thread-safe.
class FinishQueue {
 public:
  // `after` hears of each attempt, whether it went well; called on the loop, must not block.
  FinishQueue(const asio::any_io_executor& executor, Schedule& schedule, std::function<void(const absl::Status&)> after)
      : schedule_(schedule), after_(std::move(after)), event_(executor) {}

  void Add(Finished finished);
  // Its next poll has begun: what was still to be told about the one before is void.
  void Forget(const std::string& id);
  // Spawn once. Ends after Close, when what was there has been told once more. Not cancellable: what it is telling is
  // to arrive.
  async::Task<void> Run();
  void Close();

 private:
  async::Task<absl::Status> Tell();

  Schedule& schedule_;
  const std::function<void(const absl::Status&)> after_;
  async::Event event_;
  std::mutex mutex_;
  std::unordered_map<std::string, Finished> waiting_;  // guarded by mutex_
  std::unordered_set<std::string> void_;               // guarded by mutex_: forgotten while it was being told
  bool telling_ = false;                               // guarded by mutex_
  bool closed_ = false;                                // guarded by mutex_
};

}  // namespace poststelle::lease
