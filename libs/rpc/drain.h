// The way out of a service: what is stopped, in order, within a time limit.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace poststelle::rpc {

// One part that has to come to rest; `run` returns when it has.
struct DrainStep {
  std::string name;  // for the log, should it not
  std::function<void()> run;
};

// Watches over an orderly end: what is not over within `limit` ends the process with exit code 1 and an error in the
// log that names the `parts` that had not come to rest. Thread-safe.
class DrainWatch {
 public:
  DrainWatch(absl::Duration limit, std::vector<std::string> parts);
  ~DrainWatch();  // all is over
  // The first of the parts that are left has come to rest.
  void Done();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace poststelle::rpc
