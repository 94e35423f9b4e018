// Time as a seam: what decides by time takes a Clock, tests give it a fake one.
#pragma once

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace poststelle {

// Wall-clock time. Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const { return absl::Now(); }
};

}  // namespace poststelle
