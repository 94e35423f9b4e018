// The schedule of leases under a great many mailboxes, with workers that drive it as the fetcher's do
// (services/fetcher/worker.cc; the rounds of claims and the ends of polls are the same code) but whose polls end at
// once.
//
// schedule_bench [--mailboxes N] [--interval-ms N] [--workers N] [--warm-seconds N] [--seconds N] [--refill 0|1]
//
// Starts a redis-server of its own, spreads the mailboxes over one interval, lets the workers share them out for
// --warm-seconds and measures for --seconds: lateness of the claims, Redis' CPU and memory. Then, unless --refill 0,
// FLUSHALL: how long until every mailbox is scheduled again, and the lateness after that. Prints one JSON line.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "libs/base/ids.h"
#include "libs/base/status_macros.h"
#include "libs/lease/claim_round.h"
#include "libs/lease/finish_queue.h"
#include "libs/net/dialer.h"
#include "libs/redis/client.h"
#include "libs/testing/redis_server.h"

namespace poststelle {
namespace {

struct Options {
  size_t mailboxes = 1'000'000;
  absl::Duration interval = absl::Minutes(1);
  size_t workers = 4;
  absl::Duration warm = absl::Seconds(75);
  absl::Duration measured = absl::Seconds(60);
  bool refill = true;
};

// As in services/fetcher/worker.cc.
constexpr int kClaimBatch = 256;
constexpr double kJitter = 0.05;
constexpr absl::Duration kLease = absl::Seconds(30);
constexpr absl::Duration kMinPause = absl::Milliseconds(20);
constexpr absl::Duration kMaxIdle = absl::Seconds(1);

[[noreturn]] void Die(std::string_view what) {
  std::fprintf(stderr, "schedule_bench: %.*s\n", static_cast<int>(what.size()), what.data());
  std::exit(1);
}

// A number of "INFO section".
double Info(const testing::RedisServer& redis, const std::string& section, const std::string& field) {
  const std::string said = redis.Cli("info " + section);
  const size_t at = said.find(field + ":");
  if (at == std::string::npos) Die("INFO has no " + field);
  return std::atof(said.c_str() + at + field.size() + 1);
}

double CpuOf(const testing::RedisServer& redis) {
  return Info(redis, "cpu", "used_cpu_user") + Info(redis, "cpu", "used_cpu_sys");
}

// How late the claims of one phase were.
class Lateness {
 public:
  void Add(absl::Duration late) { ++counts_[std::min<size_t>(absl::ToInt64Milliseconds(late), kTop)]; }
  void Add(const Lateness& other) {
    for (size_t i = 0; i <= kTop; ++i) counts_[i] += other.counts_[i];
  }
  uint64_t total() const {
    uint64_t sum = 0;
    for (uint64_t c : counts_) sum += c;
    return sum;
  }
  size_t PercentileMs(double part) const {
    const auto wanted = static_cast<uint64_t>(part * static_cast<double>(total()));
    uint64_t seen = 0;
    for (size_t i = 0; i <= kTop; ++i) {
      seen += counts_[i];
      if (seen > wanted) return i;
    }
    return kTop;
  }
  size_t MaxMs() const {
    for (size_t i = kTop; i > 0; --i) {
      if (counts_[i] > 0) return i;
    }
    return 0;
  }

 private:
  static constexpr size_t kTop = 120'000;  // milliseconds; what is later counts as this
  std::vector<uint64_t> counts_ = std::vector<uint64_t>(kTop + 1);
};

struct Figures {
  Lateness late;
  uint64_t broken = 0;  // claims of what somebody else held last
  uint64_t calls = 0;   // of Claim
};

class Worker {
 public:
  Worker(async::Runtime& runtime, net::Dialer& dialer, const redis::Address& address, const Options& o,
         const std::vector<std::string>& ids)
      : o_(o),
        ids_(ids),
        executor_(runtime.executor()),
        redis_(executor_, dialer, address),
        schedule_(executor_, redis_, RandomId().substr(0, 12), kLease),
        wake_(executor_),
        to_register_(executor_),
        finished_(executor_, schedule_, [this](const absl::Status& told) { Finished(told); }),
        claims_(executor_),
        finishing_(executor_) {}

  void Start() {
    claims_.Spawn(ClaimLoop());
    claims_.Spawn(RegisterLoop());
    finishing_.Spawn(finished_.Run());
  }
  void Stop() {
    claims_.Cancel();
    claims_.JoinBlocking();
    finished_.Close();
    finishing_.JoinBlocking();
    redis_.Stop();
  }
  Figures Take() {
    std::lock_guard lock(mutex_);
    return std::exchange(figures_, Figures());
  }
  // Registrations that were completed, the one at the start included.
  int registrations() const { return registrations_; }
  int64_t held() const { return held_; }

 private:
  // What it polled last takes its place again, the rest is spread.
  async::Task<absl::Status> RegisterAll() {
    std::vector<lease::Member> members(ids_.size());
    const absl::Time now = absl::Now();
    for (size_t i = 0; i < ids_.size(); ++i) {
      members[i].id = ids_[i];
      std::lock_guard lock(mutex_);
      if (auto it = mine_.find(ids_[i]); it != mine_.end()) {
        members[i].mine = true;
        members[i].delay = it->second - now;
      } else {
        const double part = static_cast<double>(std::hash<std::string>()(ids_[i]) % 10'007) / 10'007;
        members[i].delay = registrations_ == 0 ? o_.interval * part : kLease * (0.2 + 0.8 * part);
      }
    }
    PS_CO_RETURN_IF_ERROR(co_await schedule_.Register(std::move(members), true));
    ++registrations_;
    co_return absl::OkStatus();
  }

  async::Task<void> RegisterLoop() {
    while (true) {
      if (absl::Status s = co_await to_register_.Wait(kMaxIdle); absl::IsCancelled(s)) co_return;
      if (registered_) continue;
      const absl::Status status = co_await RegisterAll();
      if (absl::IsCancelled(status)) co_return;
      if (!status.ok()) Complain(status);
      std::lock_guard lock(mutex_);
      registered_ = status.ok();
      registered_at_ = absl::Now();
    }
  }

  async::Task<void> ClaimLoop() {
    while (!claims_.cancelled()) {
      absl::Duration idle = kMaxIdle;
      absl::Status status = co_await ClaimAll(idle);
      if (absl::IsCancelled(status)) co_return;
      if (!status.ok()) Complain(status);
      if (!registered_) to_register_.Notify();
      const bool more = idle <= absl::ZeroDuration();
      if (!more) (co_await async::Sleep(kMinPause)).IgnoreError();
      (co_await wake_.Wait(std::max(idle - kMinPause, more ? kMinPause : absl::ZeroDuration()))).IgnoreError();
    }
  }

  async::Task<absl::Status> ClaimAll(absl::Duration& idle) {
    const absl::Time begun = absl::Now();
    lease::Claimant claimant;
    claimant.wanted = [] { return kClaimBatch; };
    claimant.hungry = [this] { return share_ == 0 || held_ < share_; };
    claimant.take = [this](lease::ClaimResult& claimed) { return Poll(claimed); };
    PS_CO_ASSIGN_OR_RETURN(const lease::ClaimTotals totals,
                           co_await lease::ClaimRound(executor_, schedule_, claimant, lease::kShards));
    if (totals.next_due_in) idle = std::min(idle, *totals.next_due_in);
    held_ = totals.held;
    share_ = (totals.members + totals.workers - 1) / totals.workers;
    std::lock_guard lock(mutex_);
    if (totals.wiped && begun > registered_at_) registered_ = false;
    co_return absl::OkStatus();
  }

  // Polls that take no time.
  async::Task<void> Poll(lease::ClaimResult& claimed) {
    if (claimed.claims.empty()) co_return;
    const absl::Time now = absl::Now();
    std::lock_guard lock(mutex_);
    ++figures_.calls;
    for (const lease::Claimed& claim : claimed.claims) {
      figures_.late.Add(claim.late);
      if (!claim.unbroken) {
        ++figures_.broken;
        ++held_;
      }
      const size_t hash = std::hash<std::string>()(claim.id) ^ static_cast<size_t>(absl::ToUnixMillis(now));
      lease::Finished done;
      done.id = claim.id;
      done.due = now + o_.interval * (1.0 - kJitter * static_cast<double>(hash % 1000) / 1000.0);
      mine_[claim.id] = done.due;
      finished_.Forget(claim.id);
      finished_.Add(std::move(done));
    }
  }

  void Finished(const absl::Status& told) {
    if (!told.ok()) Complain(told);
    wake_.Notify();
  }

  static void Complain(const absl::Status& status) {
    std::fprintf(stderr, "schedule_bench: %s\n", status.ToString().c_str());
  }

  const Options& o_;
  const std::vector<std::string>& ids_;
  const asio::any_io_executor executor_;
  redis::Client redis_;
  lease::RedisSchedule schedule_;
  async::Event wake_;
  async::Event to_register_;
  lease::FinishQueue finished_;
  std::atomic<bool> registered_{false};
  std::atomic<int> registrations_{0};
  std::atomic<int64_t> held_{0};
  std::atomic<int64_t> share_{0};
  std::mutex mutex_;
  absl::Time registered_at_;                          // guarded by mutex_
  Figures figures_;                                   // guarded by mutex_
  std::unordered_map<std::string, absl::Time> mine_;  // guarded by mutex_
  async::TaskScope claims_;
  async::TaskScope finishing_;
};

using Workers = std::vector<std::unique_ptr<Worker>>;

Figures TakeAll(const Workers& workers) {
  Figures sum;
  for (const auto& worker : workers) {
    const Figures one = worker->Take();
    sum.late.Add(one.late);
    sum.broken += one.broken;
    sum.calls += one.calls;
  }
  return sum;
}

int64_t Scheduled(const testing::RedisServer& redis) {
  int64_t sum = 0;
  for (int shard = 0; shard < lease::kShards; ++shard) {
    sum += std::atoll(redis.Cli(absl::StrCat("zcard 'poststelle:{s", shard, "}:turns'")).c_str());
  }
  return sum;
}

// Until every worker has registered `times` times.
void AwaitRegistrations(const Workers& workers, int times, absl::Duration limit) {
  const absl::Time end = absl::Now() + limit;
  const auto behind = [times](const auto& w) { return w->registrations() < times; };
  while (std::any_of(workers.begin(), workers.end(), behind)) {
    if (absl::Now() > end) Die("the schedule was not filled in time");
    absl::SleepFor(absl::Milliseconds(5));
  }
}

// Until the schedule holds `members` again; a worker that heard of the wipe only when others had filled it has nothing
// to do.
void AwaitMembers(const testing::RedisServer& redis, int64_t members, absl::Duration limit) {
  const absl::Time end = absl::Now() + limit;
  while (Scheduled(redis) < members) {
    if (absl::Now() > end) Die("the schedule was not filled in time");
    absl::SleepFor(absl::Milliseconds(5));
  }
}

void Print(const char* name, const Figures& f) {
  std::printf(R"("%s": {"claims": %llu, "p50_ms": %zu, "p99_ms": %zu, "max_ms": %zu, "broken": %llu}, )", name,
              static_cast<unsigned long long>(f.late.total()), f.late.PercentileMs(0.5), f.late.PercentileMs(0.99),
              f.late.MaxMs(), static_cast<unsigned long long>(f.broken));
}

Options Parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const int64_t value = std::atoll(argv[i + 1]);
    if (name == "--mailboxes") {
      o.mailboxes = static_cast<size_t>(value);
    } else if (name == "--interval-ms") {
      o.interval = absl::Milliseconds(value);
    } else if (name == "--workers") {
      o.workers = static_cast<size_t>(value);
    } else if (name == "--warm-seconds") {
      o.warm = absl::Seconds(value);
    } else if (name == "--seconds") {
      o.measured = absl::Seconds(value);
    } else if (name == "--refill") {
      o.refill = value != 0;
    } else {
      Die(absl::StrCat("unknown option ", argv[i]));
    }
  }
  if (o.mailboxes == 0 || o.workers == 0) Die("there is nothing to schedule");
  return o;
}

int Main(int argc, char** argv) {
  const Options o = Parse(argc, argv);
  std::vector<std::string> ids;
  ids.reserve(o.mailboxes);
  for (size_t i = 0; i < o.mailboxes; ++i) ids.push_back("m" + RandomId());
  testing::RedisServer redis;
  const double empty_bytes = Info(redis, "memory", "used_memory");
  async::Runtime runtime(2);
  auto dialer = net::MakeTcpDialer(net::MakeResolver(runtime.executor()), net::EgressPolicy::Unrestricted());
  auto address = redis::ParseUrl(redis.url());
  if (!address.ok()) Die(address.status().ToString());
  Workers workers;
  for (size_t i = 0; i < o.workers; ++i) {
    workers.push_back(std::make_unique<Worker>(runtime, *dialer, *address, o, ids));
  }
  for (const auto& worker : workers) worker->Start();
  AwaitRegistrations(workers, 1, absl::Minutes(5));
  absl::SleepFor(o.warm);
  TakeAll(workers);

  const double cpu = CpuOf(redis);
  const absl::Time begin = absl::Now();
  absl::SleepFor(o.measured);
  const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  const double core = (CpuOf(redis) - cpu) / seconds;
  const Figures steady = TakeAll(workers);
  const double bytes = (Info(redis, "memory", "used_memory") - empty_bytes) / static_cast<double>(o.mailboxes);
  const int64_t scheduled = Scheduled(redis);

  std::printf(R"({"mailboxes": %zu, "scheduled": %lld, "workers": %zu, )", o.mailboxes,
              static_cast<long long>(scheduled), o.workers);
  Print("steady", steady);
  if (o.refill) {
    const absl::Time wiped = absl::Now();
    redis.Cli("flushall");
    AwaitMembers(redis, scheduled, absl::Minutes(5));
    const double refill = absl::ToDoubleSeconds(absl::Now() - wiped);
    absl::SleepFor(std::min(o.measured, o.interval));
    Print("after_refill", TakeAll(workers));
    std::printf(R"("refill_s": %.2f, "scheduled_again": %lld, )", refill, static_cast<long long>(Scheduled(redis)));
  }
  std::string held;
  for (const auto& worker : workers) absl::StrAppend(&held, held.empty() ? "" : ", ", worker->held());
  std::printf(R"("claims_per_s": %.0f, "claim_calls_per_s": %.0f, "redis_core": %.3f, "bytes_per_mailbox": %.1f, )"
              R"("held": [%s]})"
              "\n",
              static_cast<double>(steady.late.total()) / seconds, static_cast<double>(steady.calls) / seconds, core,
              bytes, held.c_str());
  for (const auto& worker : workers) worker->Stop();
  return 0;
}

}  // namespace
}  // namespace poststelle

int main(int argc, char** argv) { return poststelle::Main(argc, argv); }
