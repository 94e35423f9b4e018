// poststelle-fetcher: polls inbound mailboxes and publishes tickets. This file lists the parts, in the order in which
// they are built; the way out is the reverse.
#include <iostream>

#include "libs/base/ids.h"
#include "libs/lease/schedule.h"
#include "libs/net/dialer.h"
#include "libs/observe/log.h"
#include "libs/parsing/parser_pool.h"
#include "libs/redis/client.h"
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
  WorkerOptions worker_options;

  rpc::Options options("fetcher", "Polls inbound mailboxes and publishes tickets.");
  options.common().listen = "127.0.0.1:7072";
  options.Text("--database", database_url, "Where the ledger lives: sqlite:PATH or postgresql://USER@HOST/NAME");
  options.Text("--redis", redis_url, "Redis that schedules the workers: redis://[:password@]host:port[/db]");
  options.Text("--config-address", config_address, "Address of the config service");
  options.Text("--config-token-file", token_file, "File with the token that config made for the fetcher");
  options.Text("--parser", parser_path, "Path of poststelle-parser; default: beside this program");
  options.Number("--max-sessions", max_sessions, "Polls at once", 1, 10'000);
  options.Number("--max-message-size", max_message_size, "Bytes above which only the headers of a mail are fetched",
                 1024, int64_t{1} << 30);
  options.Number("--memory", memory, "Bytes of raw mail in hand at once", 1 << 20, int64_t{1} << 40);
  options.Number("--parsers", parsers, "Child processes that parse", 1, 64);
  options.Duration("--command-timeout", command_timeout, "How long a mail server may take for one step");
  options.Duration("--lease", worker_options.lease, "How long a claimed mailbox is held unrenewed");
  if (std::optional<int> exit_code = options.Parse(argc, argv)) return *exit_code;
  worker_options.max_sessions = static_cast<int>(max_sessions);
  worker_options.renew_every = worker_options.lease * 0.3;

  rpc::ServiceFrame frame("fetcher", options.common());
  for (const char* dependency : {"config", "redis"}) frame.Depend(dependency);
  async::Runtime runtime(2);
  const asio::any_io_executor executor = runtime.executor();

  absl::StatusOr<PreparedLedger> ledger = PrepareLedger(executor, database_url);
  if (!ledger.ok()) {
    std::cerr << "--database: " << ledger.status().message() << "\n";
    return 1;
  }
  sql::Database& database = *ledger->database;
  const std::string holder = RandomId();  // this process start

  MailboxCatalog catalog;
  std::shared_ptr<grpc::Channel> channel = rpc::MakeChannel(config_address);
  std::unique_ptr<CredentialSource> credentials = MakeConfigCredentials(executor, channel, token_file);
  std::unique_ptr<net::Dialer> dialer = net::MakeTcpDialer(executor);
  parsing::ParserPool::Options parser_options;
  parser_options.binary = parser_path;
  parser_options.children = static_cast<int>(parsers);
  parser_options.max_message_bytes = static_cast<size_t>(max_message_size) + (1 << 20);
  parsing::ParserPool parser(executor, parser_options);
  Committer committer(executor, database, holder);
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
  redis::Client redis(executor, *dialer, *redis_address);
  lease::RedisSchedule schedule(redis, holder, worker_options.lease);
  Worker worker(fetch, catalog, schedule, worker_options, [&frame](bool ready) { frame.SetReady("redis", ready); });

  TicketFeed feed(database, ledger->feed);
  LedgerQueries queries(database);
  TicketFeedService feed_service(executor, feed, queries, frame.draining());
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
