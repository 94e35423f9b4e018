// poststelle-fetcher: polls inbound mailboxes and publishes tickets. This file lists the parts, in the order in which
// they are built; the way out is the reverse.
#include <iostream>

#include "libs/base/ids.h"
#include "libs/lease/connection_limits.h"
#include "libs/lease/schedule.h"
#include "libs/net/dialer.h"
#include "libs/observe/log.h"
#include "libs/parsing/parser_pool.h"
#include "libs/redis/cluster_client.h"
#include "libs/rpc/client.h"
#include "libs/rpc/options.h"
#include "libs/rpc/server.h"
#include "libs/sql/database.h"
#include "services/fetcher/committer.h"
#include "services/fetcher/config_client.h"
#include "services/fetcher/fetch_service.h"
#include "services/fetcher/message_service.h"
#include "services/fetcher/prepare.h"
#include "services/fetcher/quarantine_service.h"
#include "services/fetcher/ticket_feed_service.h"
#include "services/fetcher/worker.h"

namespace poststelle::fetcher {
namespace {

int Main(int argc, char** argv) {
  std::string database_url = "sqlite:fetcher.db";
  std::string redis_url = "redis://127.0.0.1:6379";
  std::string config_address = "127.0.0.1:7071";
  std::string token_file = "fetcher.token";
  std::string parser_path;
  int64_t max_sessions = 200;
  int64_t max_message_size = 64 << 20;
  int64_t memory = 256 << 20;
  int64_t parsers = 2;
  absl::Duration command_timeout = absl::Seconds(60);
  Subscriptions::Options subscription_options;
  WorkerOptions worker_options;
  lease::ConnectionLimitOptions limits;
  int64_t host_connections = limits.per_host;
  int64_t account_connections = limits.per_account;

  rpc::Options options("fetcher", "Polls inbound mailboxes and publishes tickets.");
  options.common().listen = "127.0.0.1:7072";
  options.Text("--database", database_url, "Where the ledger lives: sqlite:PATH or postgresql://USER@HOST/NAME");
  options.Text("--redis", redis_url, std::string("Redis that schedules the workers: ") + redis::kUrlHelp);
  options.Text("--config-address", config_address, "Address of the config service");
  options.Text("--config-token-file", token_file, "File with the token that config made for the fetcher");
  options.Text("--parser", parser_path, "Path of poststelle-parser; default: beside this program");
  options.Number("--max-sessions", max_sessions, "Polls at once", 1, 10'000);
  options.Number("--max-message-size", max_message_size, "Bytes above which only the headers of a mail are fetched",
                 1024, int64_t{1} << 30);
  options.Number("--memory", memory, "Bytes of raw mail in hand at once", 1 << 20, int64_t{1} << 40);
  options.Number("--parsers", parsers, "Child processes that parse", 1, 64);
  options.Duration("--command-timeout", command_timeout, "How long a mail server may take for one step");
  options.Number("--host-connections", host_connections, "Connections of all workers to one mail host", 1, 100'000);
  options.Number("--account-connections", account_connections, "Connections of all workers to one account", 1, 1000);
  options.Duration("--lease", worker_options.lease, "How long a claimed mailbox is held unrenewed");
  options.Duration("--subscription-lease", subscription_options.lease,
                   "How long a silent subscriber's share of the feed is kept for it");
  if (std::optional<int> exit_code = options.Parse(argc, argv)) return *exit_code;
  worker_options.max_sessions = static_cast<int>(max_sessions);
  limits.per_host = static_cast<int>(host_connections);
  limits.per_account = static_cast<int>(account_connections);
  worker_options.renew_every = worker_options.lease * 0.3;

  rpc::ServiceFrame frame("fetcher", options.common());
  for (const char* dependency : {"config", "redis"}) frame.Depend(dependency);
  async::Runtime runtime(2);
  const asio::any_io_executor executor = runtime.executor();

  absl::StatusOr<PreparedLedger> ledger = absl::UnknownError("not prepared");
  const absl::Status prepared = frame.AwaitAvailable("database", [&] {
    ledger = PrepareLedger(executor, database_url);
    return ledger.status();
  });
  if (absl::IsCancelled(prepared)) return 0;
  if (!prepared.ok()) {
    std::cerr << "--database: " << prepared.message() << "\n";
    return 1;
  }
  sql::Database& database = *ledger->database;
  const std::string holder = RandomId();                  // this process start, in SQL
  const std::string short_holder = holder.substr(0, 12);  // and in Redis

  MailboxCatalog catalog;
  std::shared_ptr<grpc::Channel> channel = rpc::MakeChannel(config_address);
  std::unique_ptr<CredentialSource> credentials = MakeConfigCredentials(executor, channel, token_file);
  std::unique_ptr<net::Dialer> dialer = net::MakeTcpDialer(executor);
  parsing::ParserPool::Options parser_options;
  parser_options.binary = parser_path;
  parser_options.children = static_cast<int>(parsers);
  parser_options.max_message_bytes = static_cast<size_t>(max_message_size) + (1 << 20);
  parsing::ParserPool parser(executor, parser_options);
  TicketFeed feed(executor, database, ledger->feed);
  Committer committer(executor, database, ledger->feed, holder, [&feed] { feed.Committed(); });
  async::Budget memory_budget(executor, memory);
  FetcherMetrics metrics(frame.metrics());
  StatusBoard board(database, catalog);
  FetchContext fetch{executor,
                     *dialer,
                     database,
                     committer,
                     parser,
                     memory_budget,
                     *credentials,
                     board,
                     metrics,
                     ledger->feed,
                     static_cast<uint64_t>(max_message_size)};
  fetch.command_timeout = command_timeout;
  fetch.connect_timeout = std::min(fetch.connect_timeout, command_timeout);

  absl::StatusOr<redis::Address> redis_address = redis::ParseUrl(redis_url);
  if (!redis_address.ok()) {
    std::cerr << "--redis: " << redis_address.status().message() << "\n";
    return 2;
  }
  prometheus::Gauge& redis_connected =
      frame.metrics().Gauge("poststelle_redis_connected", "1 while every master of Redis is connected");
  redis::ClusterClient redis(executor, *dialer, *redis_address, [&redis_connected](bool up) {
    redis_connected.Set(up ? 1 : 0);
    observe::Log(up ? observe::Level::kInfo : observe::Level::kWarning, up ? "redis.connected" : "redis.disconnected",
                 {});
  });
  lease::RedisSchedule schedule(redis, short_holder, worker_options.lease);
  limits.lease = worker_options.lease;
  lease::ConnectionLimits connections(executor, redis, short_holder, limits);
  Worker worker(fetch, catalog, schedule, connections, worker_options,
                [&frame](bool ready) { frame.SetReady("redis", ready); });

  Subscriptions subscriptions(database, ledger->feed, holder, subscription_options);
  FeedHub hub(executor, feed, subscriptions, {});
  LedgerQueries queries(database);
  SubscriptionQueries subscription_queries(database, ledger->feed);
  TicketFeedService feed_service(executor, feed, hub, queries, subscription_queries, frame.draining());
  MessageService message_service(fetch, queries, catalog);
  FetchService fetch_service(executor, catalog, board, ledger->feed.epoch);
  QuarantineService quarantine_service(executor, queries, ledger->feed.epoch);
  for (grpc::Service* service :
       std::initializer_list<grpc::Service*>{&feed_service, &message_service, &fetch_service, &quarantine_service}) {
    frame.Add(*service);
  }
  if (absl::Status started = frame.Start(); !started.ok()) {
    std::cerr << started.message() << "\n";
    committer.Stop();
    return 1;
  }
  async::TaskScope background(executor);
  async::RunBlocking(executor, LoadStatuses(board));
  background.Spawn(board.FlushLoop());
  observe::Log(observe::Level::kInfo, "worker.started", {{"holder", short_holder}});
  worker.Start();
  ConfigWatch watch(channel, catalog, [&frame](bool ready) { frame.SetReady("config", ready); });

  return frame.RunUntilSignal([&] {
    watch.Stop();
    worker.Drain();
    background.Cancel();
    background.JoinBlocking();
    committer.Stop();
    parser.Stop();
    redis.Stop();
  });
}

}  // namespace
}  // namespace poststelle::fetcher

int main(int argc, char** argv) { return poststelle::fetcher::Main(argc, argv); }
