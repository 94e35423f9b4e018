// poststelle-fetcher: polls inbound mailboxes and publishes tickets. This file lists the parts, in the order in which
// they are built; the way out is the reverse.
#include <malloc.h>
#include <iostream>

#include "libs/base/ids.h"
#include "libs/blob/segment_store.h"
#include "libs/lease/connection_limits.h"
#include "libs/lease/schedule.h"
#include "libs/net/dialer.h"
#include "libs/observe/log.h"
#include "libs/parsing/parser_pool.h"
#include "libs/redis/cluster_client.h"
#include "libs/rpc/client.h"
#include "libs/rpc/server.h"
#include "libs/sql/monitor.h"
#include "services/fetcher/committer.h"
#include "services/fetcher/config_client.h"
#include "services/fetcher/fetch_service.h"
#include "services/fetcher/message_service.h"
#include "services/fetcher/options.h"
#include "services/fetcher/prepare.h"
#include "services/fetcher/probe_service.h"
#include "services/fetcher/quarantine_service.h"
#include "services/fetcher/ticket_feed_service.h"
#include "services/fetcher/worker.h"

namespace poststelle::fetcher {
namespace {

// Beside an SQLite file, which its processes reach in any case; within a database that several hosts share.
absl::StatusOr<std::unique_ptr<blob::Store>> OpenRawStore(const std::string& database_url, const std::string& owner) {
  const std::optional<std::string> file = sql::SqlitePath(database_url);
  if (!file) return blob::MakeRowStore();
  return blob::OpenSegmentStore(*file + "-raw", owner);
}

int Main(int argc, char** argv) {
  // Buffers of raw mail go from thread to thread: with an arena for each they would leave room behind in all of them.
  mallopt(M_ARENA_MAX, 2);
  Options options;
  if (std::optional<int> exit_code = ParseOptions(argc, argv, options)) return *exit_code;

  rpc::ServiceFrame frame("fetcher", options.common);
  for (const char* dependency : {"config", "redis"}) frame.Depend(dependency);
  auto access = rpc::Access::Open(options.common.access);
  if (!access.ok()) {
    std::cerr << "--identities-file: " << access.status().message() << "\n";
    return 1;
  }
  async::Runtime runtime(2);
  const asio::any_io_executor executor = runtime.executor();
  rpc::Gate gate(executor, **access);
  auto opened = sql::Open(executor, options.database_url);
  if (!opened.ok()) {
    std::cerr << "--database: " << opened.status().message() << "\n";
    return 1;
  }
  sql::Database& database = **opened;
  FeedInfo feed_info;                                     // empty until the ledger is prepared
  const std::string holder = RandomId();                  // this process start, in SQL
  const std::string short_holder = holder.substr(0, 12);  // and in Redis
  absl::StatusOr<std::unique_ptr<blob::Store>> raw_opened = OpenRawStore(options.database_url, short_holder);
  if (!raw_opened.ok()) {
    std::cerr << "--database: " << raw_opened.status().message() << "\n";
    return 1;
  }
  blob::Store& raw = **raw_opened;

  MailboxCatalog catalog;
  std::shared_ptr<grpc::Channel> channel = rpc::MakeChannel(options.config_address, options.config_token_file);
  std::unique_ptr<CredentialSource> credentials = MakeConfigCredentials(executor, channel);
  std::shared_ptr<net::Resolver> names = net::MakeResolver(executor, options.name_servers);
  std::unique_ptr<net::DnsRecords> records = net::MakeDnsRecords(executor, options.name_servers);
  std::unique_ptr<net::Dialer> to_mail_servers = net::MakeTcpDialer(names, options.egress);
  std::unique_ptr<net::Dialer> to_redis = net::MakeTcpDialer(names, net::EgressPolicy::Unrestricted());
  parsing::ParserPool parser(executor, options.parser);
  TicketFeed feed(executor, database, feed_info);
  Committer committer(executor, database, feed_info, holder, [&feed] { feed.Committed(); });
  async::Budget memory(executor, options.memory);
  FetcherMetrics metrics(frame.metrics());
  StatusBoard board(database, catalog);
  FetchContext fetch{executor,
                     *to_mail_servers,
                     database,
                     committer,
                     parser,
                     raw,
                     memory,
                     *credentials,
                     board,
                     metrics,
                     static_cast<uint64_t>(options.max_message_size)};
  fetch.command_timeout = options.command_timeout;
  fetch.connect_timeout = std::min(fetch.connect_timeout, options.command_timeout);

  prometheus::Gauge& redis_connected =
      frame.metrics().Gauge("poststelle_redis_connected", "1 while every master of Redis is connected");
  redis::ClusterClient redis(executor, *to_redis, options.redis, [&redis_connected](bool up) {
    redis_connected.Set(up ? 1 : 0);
    observe::Log(up ? observe::Level::kInfo : observe::Level::kWarning, up ? "redis.connected" : "redis.disconnected",
                 {});
  });
  lease::RedisSchedule schedule(executor, redis, short_holder, options.worker.lease);
  lease::ConnectionLimits connections(executor, redis, short_holder, options.connections);
  Worker worker(fetch, catalog, schedule, connections, options.worker,
                [&frame](bool ready) { frame.SetReady("redis", ready); });

  Subscriptions subscriptions(database, feed_info, holder, options.subscriptions);
  FeedHub hub(executor, feed, subscriptions, {});
  LedgerQueries queries(database, raw);
  SubscriptionQueries subscription_queries(database, feed_info);
  TicketFeedService feed_service(gate, feed, hub, queries, subscription_queries, frame.draining());
  MessageService message_service(gate, fetch, queries, catalog);
  FetchService fetch_service(gate, catalog, board, feed_info);
  ProbeContext probe{*to_mail_servers, connections, database};
  probe.connect_timeout = fetch.connect_timeout;
  probe.command_timeout = std::min(probe.command_timeout, options.command_timeout);
  ProbeService probe_service(gate, probe, *records);
  QuarantineService quarantine_service(gate, queries, feed_info);
  for (grpc::Service* service : std::initializer_list<grpc::Service*>{&feed_service, &message_service, &fetch_service,
                                                                      &quarantine_service, &probe_service}) {
    frame.Add(*service);
  }

  async::TaskScope background(executor);
  std::optional<ConfigWatch> watch;
  sql::Monitor monitor(executor, database, {}, [&frame](bool answers, const absl::Status& error) {
    frame.SetReady("database", answers, error);
  });
  rpc::Work work;
  work.dependency = "database";
  std::vector<MailboxKey> known_mailboxes;
  work.prepare = [&] { return PrepareLedger(database, raw, feed_info, board, known_mailboxes); };
  work.start = [&] {
    monitor.Start();
    background.Spawn(board.FlushLoop());
    observe::Log(observe::Level::kInfo, "worker.started", {{"holder", short_holder}});
    worker.Start(std::move(known_mailboxes));
    watch.emplace(channel, catalog, [&frame](bool ready) { frame.SetReady("config", ready); });
  };
  work.stop = {{"watch of config", [&] { watch->Stop(); }},
               {"polls", [&] { worker.Drain(); }},
               {"states of mailboxes",
                [&] {
                  background.Cancel();
                  background.JoinBlocking();
                }},
               {"commits", [&] { committer.Stop(); }},
               {"parsers", [&] { parser.Stop(); }},
               {"redis", [&] { redis.Stop(); }},
               {"database monitor", [&] { monitor.Stop(); }}};
  return frame.Run(gate, work);
}

}  // namespace
}  // namespace poststelle::fetcher

int main(int argc, char** argv) { return poststelle::fetcher::Main(argc, argv); }
