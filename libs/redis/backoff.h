// How long to wait between attempts, so that neither one client nor many at once storm a server that comes back.
#pragma once

#include <algorithm>
#include <random>

#include "absl/time/time.h"

namespace poststelle::redis {

// Doubles from `least` to `most`; each wait is drawn from its upper half. Not thread-safe.
class Backoff {
 public:
  Backoff(absl::Duration least, absl::Duration most) : least_(least), most_(most), next_(least) {}
  absl::Duration Next() {
    // Seeded once a thread: asking the system is dear in a virtual machine, and most of these never wait.
    thread_local std::minstd_rand random{std::random_device()()};
    const absl::Duration wait = next_ * std::uniform_real_distribution<double>(0.5, 1.0)(random);
    next_ = std::min(next_ * 2, most_);
    return wait;
  }
  void Reset() { next_ = least_; }

 private:
  const absl::Duration least_, most_;
  absl::Duration next_;
};

}  // namespace poststelle::redis
