// The options of the fetcher, as its parts take them.
#pragma once

#include <optional>
#include <string>

#include "absl/time/time.h"
#include "libs/lease/connection_limits.h"
#include "libs/net/egress_policy.h"
#include "libs/parsing/parser_pool.h"
#include "libs/redis/address.h"
#include "libs/rpc/options.h"
#include "services/fetcher/subscriptions.h"
#include "services/fetcher/worker.h"

namespace poststelle::fetcher {

struct Options {
  rpc::CommonOptions common;
  std::string database_url = "sqlite:fetcher.db";
  redis::Address redis;
  std::string config_address = "127.0.0.1:7071";
  std::string config_token_file = "fetcher.token";
  int64_t max_message_size = 64 << 20;  // bytes
  int64_t memory = 256 << 20;           // bytes
  absl::Duration command_timeout = absl::Seconds(60);
  parsing::ParserPool::Options parser;
  net::EgressPolicy egress;  // for mail servers
  std::string name_servers;  // as in net::MakeResolver
  lease::ConnectionLimitOptions connections;
  WorkerOptions worker;
  Subscriptions::Options subscriptions;
};

// Fills in `options`. Empty to go on; otherwise the exit code, as rpc::Options::Parse.
std::optional<int> ParseOptions(int argc, char** argv, Options& options);

}  // namespace poststelle::fetcher
