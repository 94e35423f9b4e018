#include "services/fetcher/options.h"

#include <iostream>

#include "libs/net/resolver.h"

namespace poststelle::fetcher {

std::optional<int> ParseOptions(int argc, char** argv, Options& options) {
  std::string redis_url = "redis://127.0.0.1:6379";
  int64_t max_sessions = options.worker.max_sessions;
  int64_t parsers = 2;
  int64_t host_connections = options.connections.per_host;
  int64_t account_connections = options.connections.per_account;

  rpc::Options flags("fetcher", "Polls inbound mailboxes and publishes tickets.");
  flags.common().listen = "127.0.0.1:7072";
  flags.Text("--database", options.database_url, "Where the ledger lives: sqlite:PATH or postgresql://USER@HOST/NAME");
  flags.Text("--redis", redis_url, std::string("Redis that schedules the workers: ") + redis::kUrlHelp);
  flags.Text("--config-address", options.config_address, "Address of the config service");
  flags.Text("--config-token-file", options.config_token_file,
             "File with the token that this fetcher shows to config: one of the role service");
  flags.Text("--parser", options.parser.binary, "Path of poststelle-parser; default: beside this program");
  flags.Number("--max-sessions", max_sessions, "Polls at once", 1, 10'000);
  flags.Number("--max-message-size", options.max_message_size,
               "Bytes above which only the headers of a mail are fetched", 1024, int64_t{1} << 30);
  flags.Number("--memory", options.memory, "Bytes of raw mail in hand at once", 1 << 20, int64_t{1} << 40);
  flags.Number("--parsers", parsers, "Child processes that parse", 1, 64);
  flags.Duration("--command-timeout", options.command_timeout, "How long a mail server may take for one step");
  flags.Number("--host-connections", host_connections, "Connections of all workers to one mail host", 1, 100'000);
  flags.Number("--account-connections", account_connections, "Connections of all workers to one account", 1, 1000);
  flags.List(
      "--egress-allow",
      "Networks in which mail servers may be though they are not public: ADDRESS[/LENGTH][:PORT[-PORT]], IPv6 in "
      "brackets where a port follows",
      [&options](const std::string& network) { return options.egress.Allow(network); });
  flags.List("--egress-deny", "Networks in which no mail server may be; wins over --egress-allow",
             [&options](const std::string& network) { return options.egress.Deny(network); });
  flags.List("--name-servers", "Name servers to ask instead of the system's: ADDRESS[:PORT]",
             [&options](const std::string& server) {
               options.name_servers += (options.name_servers.empty() ? "" : ",") + server;
               return net::CheckNameServer(server);
             });
  flags.Duration("--lease", options.worker.lease, "How long a claimed mailbox is held unrenewed");
  flags.Duration("--subscription-lease", options.subscriptions.lease,
                 "How long a silent subscriber's share of the feed is kept for it");
  if (std::optional<int> exit_code = flags.Parse(argc, argv)) return exit_code;

  absl::StatusOr<redis::Address> redis = redis::ParseUrl(redis_url);
  if (!redis.ok()) {
    std::cerr << "--redis: " << redis.status().message() << "\n";
    return 2;
  }
  options.redis = *std::move(redis);
  options.common = flags.common();
  options.parser.children = static_cast<int>(parsers);
  options.parser.max_message_bytes = static_cast<size_t>(options.max_message_size) + (1 << 20);
  options.connections.per_host = static_cast<int>(host_connections);
  options.connections.per_account = static_cast<int>(account_connections);
  options.connections.lease = options.worker.lease;
  options.worker.max_sessions = static_cast<int>(max_sessions);
  options.worker.renew_every = options.worker.lease * 0.3;
  return std::nullopt;
}

}  // namespace poststelle::fetcher
