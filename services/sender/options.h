// The options of the sender, as its parts take them.
#pragma once

#include <optional>
#include <string>

#include "absl/time/time.h"
#include "libs/net/egress_policy.h"
#include "libs/rpc/options.h"

namespace poststelle::sender {

struct Options {
  rpc::CommonOptions common;
  std::string ehlo_name = "[127.0.0.1]";
  absl::Duration command_timeout = absl::Seconds(30);
  net::EgressPolicy egress;  // for mail servers
};

// Fills in `options`. Empty to go on; otherwise the exit code, as rpc::Options::Parse.
std::optional<int> ParseOptions(int argc, char** argv, Options& options);

}  // namespace poststelle::sender
