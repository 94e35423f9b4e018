// What a single server and a cluster have in common: checks, scripts by hash.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "libs/redis/commands.h"
#include "libs/redis/protocol.h"
#include "libs/redis/script_hashes.h"

namespace poststelle::redis {

class RoutedCommands : public Commands {
 public:
  // A call never takes longer than `timeout`.
  explicit RoutedCommands(absl::Duration timeout) : timeout_(timeout) {}

  async::Task<absl::StatusOr<Reply>> Command(std::vector<std::string> arguments) final;
  async::Task<absl::StatusOr<Reply>> Eval(const std::string& script, std::vector<std::string> keys,
                                          std::vector<std::string> arguments) final;

 protected:
  // Sends `bytes`, one formatted command, to whoever serves `slot` (negative: anybody).
  virtual async::Task<absl::StatusOr<Answer>> Route(int slot, std::string bytes, absl::Time deadline) = 0;

 private:
  const absl::Duration timeout_;
  ScriptHashes hashes_;
};

}  // namespace poststelle::redis
