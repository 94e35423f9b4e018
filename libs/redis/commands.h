// What the rest of the program sees of Redis, be it one server or a cluster: commands and scripts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"

namespace poststelle::redis {

// An answer. An error answer is never one of these but a failed status with Redis' words.
struct Reply {
  enum class Kind { kNil, kInteger, kString, kArray };
  Kind kind = Kind::kNil;
  int64_t integer = 0;
  std::string string;
  std::vector<Reply> array;
};

// Thread-safe. Errors: kUnavailable for whatever passes or can be put right at the server (no connection, no answer in
// time, LOADING, READONLY, CLUSTERDOWN, BUSY, MISCONF, OOM), kFailedPrecondition when Redis refuses our name or
// password, kResourceExhausted when too many commands wait, kNotFound for NOSCRIPT, kCancelled after Stop or when the
// calling coroutine is cancelled, kInvalidArgument for keys that do not lie in one slot or a call without a key where
// one is needed, kInternal for any other error answer. A command that failed may have been carried out: what is sent
// here must be repeatable.
class Commands {
 public:
  virtual ~Commands() = default;
  // One command with its arguments. Its key, by which a cluster routes it, is the second argument; what has no key
  // there (PING, SCRIPT, FLUSHALL …) goes to any one node, so do not rely on which. EVAL and EVALSHA go through Eval.
  virtual async::Task<absl::StatusOr<Reply>> Command(std::vector<std::string> arguments) = 0;
  // Runs a Lua script by its hash; sends its text where Redis does not know it (any more). Routed by keys[0]; all keys
  // of one call lie in one slot (the same hash tag).
  virtual async::Task<absl::StatusOr<Reply>> Eval(const std::string& script, std::vector<std::string> keys,
                                                  std::vector<std::string> arguments) = 0;
};

}  // namespace poststelle::redis
