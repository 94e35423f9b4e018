// redis_bench URL [SECONDS]: throughput and latency of a script that writes, from 1, 16 and 256 callers at once over
// one client. A tool to measure changes of this library with, not a test.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "absl/time/clock.h"
#include "libs/async/runtime.h"
#include "libs/net/dialer.h"
#include "libs/redis/client.h"

namespace poststelle::redis {
namespace {

const std::string kScript = "redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2]) return {1, ARGV[2]}";

struct Run {
  Commands& redis;
  absl::Time end;
  std::vector<std::vector<absl::Duration>> latencies;
  std::atomic<int> failed{0};
};

async::Task<void> Caller(Run& run, size_t index) {
  while (absl::Now() < run.end) {
    std::vector<std::string> keys{"bench:{s" + std::to_string(index % 16) + "}:due"};
    std::vector<std::string> arguments{"17", "member" + std::to_string(index)};
    const absl::Time start = absl::Now();
    auto reply = co_await run.redis.Eval(kScript, std::move(keys), std::move(arguments));
    run.latencies[index].push_back(absl::Now() - start);
    if (!reply.ok()) ++run.failed;
  }
}

void Measure(const asio::any_io_executor& executor, Commands& redis, size_t callers, absl::Duration length) {
  Run run{redis, absl::Now() + length, std::vector<std::vector<absl::Duration>>(callers)};
  async::TaskScope scope(executor);
  for (size_t i = 0; i < callers; ++i) scope.Spawn(Caller(run, i));
  scope.JoinBlocking();
  std::vector<absl::Duration> all;
  for (const auto& some : run.latencies) all.insert(all.end(), some.begin(), some.end());
  std::sort(all.begin(), all.end());
  std::printf("%3zu callers: %7.0f/s, p50 %6.0f us, p99 %6.0f us, max %6.0f us, %d failed\n", callers,
              static_cast<double>(all.size()) / absl::ToDoubleSeconds(length),
              absl::ToDoubleMicroseconds(all[all.size() / 2]), absl::ToDoubleMicroseconds(all[all.size() * 99 / 100]),
              absl::ToDoubleMicroseconds(all.back()), run.failed.load());
}

int Main(int argc, char** argv) {
  auto address = ParseUrl(argc > 1 ? argv[1] : "redis://127.0.0.1:6379");
  if (!address.ok()) {
    std::fprintf(stderr, "%s\n", std::string(address.status().message()).c_str());
    return 2;
  }
  const absl::Duration length = absl::Seconds(argc > 2 ? std::atoi(argv[2]) : 3);
  async::Runtime runtime(2);
  auto dialer = net::MakeTcpDialer(net::MakeResolver(runtime.executor()), net::EgressPolicy::Unrestricted());
  Client client(runtime.executor(), *dialer, *address);
  for (size_t callers : {1u, 16u, 256u}) Measure(runtime.executor(), client, callers, length);
  client.Stop();
  return 0;
}

}  // namespace
}  // namespace poststelle::redis

int main(int argc, char** argv) { return poststelle::redis::Main(argc, argv); }
