#include "services/fetcher/worker.h"

#include <algorithm>

#include "libs/observe/log.h"
#include "services/fetcher/failure_policy.h"

namespace poststelle::fetcher {
namespace {

// Claims a call (redis.md: cap claims per call).
constexpr int kClaimBatch = 64;
// Polls are spread by a little, so that mailboxes made together do not stay together.
constexpr double kJitter = 0.05;
constexpr absl::Duration kRedisRetry = absl::Seconds(1);
constexpr absl::Duration kMaxIdle = absl::Seconds(1);

absl::Duration IntervalOf(const config::v1::Mailbox& mailbox) {
  const auto& interval = mailbox.import_options().fetch_interval();
  absl::Duration out = absl::Seconds(interval.seconds()) + absl::Nanoseconds(interval.nanos());
  return out > absl::ZeroDuration() ? out : absl::Minutes(5);
}

// Between 1 − kJitter and 1 of `interval`, by the mailbox and the minute: no random source needed.
absl::Duration Jittered(absl::Duration interval, const std::string& id) {
  const size_t hash = std::hash<std::string>()(id) ^ static_cast<size_t>(NowMs());
  return interval * (1.0 - kJitter * static_cast<double>(hash % 1000) / 1000.0);
}

}  // namespace

struct Worker::Running {
  explicit Running(asio::any_io_executor executor) : scope(std::move(executor)) {}
  // Ends the poll where it stands; its connection is closed.
  void Stop() {
    stop = true;
    scope.Cancel();
  }
  std::shared_ptr<Hold> hold;
  std::string mailbox_id;
  std::atomic<bool> stop{false};
  async::TaskScope scope;  // the poll itself; what gives the lease back runs outside of it
  absl::StatusOr<FetchReport> report = absl::UnknownError("the poll did not end");
  bool again = false;    // the mailbox changed meanwhile: poll at once (under mutex_)
  bool removed = false;  // deleted or disabled (under mutex_)
};

Worker::Worker(FetchContext& context, MailboxCatalog& catalog, lease::Schedule& schedule, WorkerOptions options,
               std::function<void(bool)> redis_ready)
    : context_(context),
      catalog_(catalog),
      schedule_(schedule),
      options_(options),
      redis_ready_(std::move(redis_ready)),
      wake_(context.executor),
      changed_(context.executor),
      loops_(context.executor),
      polls_(context.executor) {}

Worker::~Worker() { Drain(); }

void Worker::Start() {
  catalog_.OnChange([this](const CatalogChange& change) { OnCatalogChange(change); });
  loops_.Spawn(ClaimLoop());
  loops_.Spawn(RenewLoop());
  loops_.Spawn(ApplyChanges());
}

void Worker::Drain() {
  {
    std::lock_guard lock(mutex_);
    if (draining_) return;
    draining_ = true;
    for (auto& [id, running] : running_) running->Stop();
  }
  catalog_.OnChange(nullptr);
  loops_.Cancel();
  loops_.JoinBlocking();
  polls_.JoinBlocking();
}

void Worker::OnCatalogChange(const CatalogChange& change) {
  {
    std::lock_guard lock(mutex_);
    changes_.insert(change.mailbox_id);
    const bool gone = change.mailbox == nullptr || !change.mailbox->enabled();
    if (auto it = running_.find(change.mailbox_id); it != running_.end()) {
      it->second->again = !gone;
      it->second->removed = gone;
      it->second->Stop();  // what was listed with the old settings is finished with the new ones
    }
  }
  changed_.Notify();
}

// Brings catalog changes into the schedule, within a second.
async::Task<void> Worker::ApplyChanges() {
  while (true) {
    if (absl::Status s = co_await changed_.Wait(kMaxIdle); absl::IsCancelled(s)) co_return;
    std::set<std::string> changes;
    {
      std::lock_guard lock(mutex_);
      changes.swap(changes_);
    }
    for (const std::string& id : changes) {
      MailboxRef mailbox = catalog_.Find(id);
      absl::Status done;
      if (mailbox != nullptr && mailbox->enabled()) {
        std::vector<std::pair<std::string, absl::Duration>> entry{{id, absl::ZeroDuration()}};
        done = co_await schedule_.Register(std::move(entry), false);
        if (done.ok()) done = co_await schedule_.Touch(id);
      } else {
        done = co_await schedule_.Remove(id);
      }
      if (done.ok()) continue;
      observe::Log(observe::Level::kWarning, "schedule.change_failed",
                   {{"mailbox", id}, {"error", std::string(done.message())}});
      std::lock_guard lock(mutex_);
      changes_.insert(id);  // again at the next turn
    }
    if (!changes.empty()) wake_.Notify();
  }
}

size_t Worker::free_sessions() const {
  std::lock_guard lock(mutex_);
  const size_t max = static_cast<size_t>(options_.max_sessions);
  return running_.size() >= max ? 0 : max - running_.size();
}

// Fills the schedule from the catalog: at start, and after Redis was wiped. Spread over a lease time, without a herd.
async::Task<absl::Status> Worker::RegisterAll() {
  std::vector<std::pair<std::string, absl::Duration>> entries;
  for (const MailboxRef& mailbox : catalog_.List()) {
    if (!mailbox->enabled()) continue;
    const std::string id = MailboxIdOf(mailbox->name());
    const double share = static_cast<double>(std::hash<std::string>()(id) % 1000) / 1000.0;
    entries.emplace_back(id, std::min(options_.lease, IntervalOf(*mailbox)) * share);
  }
  co_return co_await schedule_.Register(std::move(entries), true);
}

async::Task<void> Worker::ClaimLoop() {
  while (true) {
    absl::Duration idle = kMaxIdle;
    absl::Status status;
    if (!catalog_.synced()) {
      idle = absl::Milliseconds(100);
    } else {
      if (!registered_) status = co_await RegisterAll();
      if (status.ok()) registered_ = true;
      for (int shard = 0; shard < lease::kShards && status.ok(); ++shard) {
        absl::StatusOr<absl::Duration> next = co_await ClaimShard(shard);
        status = next.status();
        if (next.ok()) idle = std::min(idle, *next);
      }
      redis_ready_(status.ok());
    }
    if (!status.ok() && !absl::IsCancelled(status)) {
      observe::Log(observe::Level::kWarning, "schedule.unavailable", {{"error", std::string(status.message())}});
      idle = kRedisRetry;
    }
    if (absl::Status s = co_await wake_.Wait(std::max(idle, absl::Milliseconds(5))); absl::IsCancelled(s)) co_return;
  }
}

// Claims what is due in one shard; returns when to look again.
async::Task<absl::StatusOr<absl::Duration>> Worker::ClaimShard(int shard) {
  const int wanted = static_cast<int>(std::min<size_t>(free_sessions(), kClaimBatch));
  if (wanted == 0) co_return kMaxIdle;
  absl::StatusOr<lease::ClaimResult> claimed = co_await schedule_.Claim(shard, wanted);
  if (!claimed.ok()) co_return claimed.status();
  if (claimed->wiped) {
    absl::Status registered = co_await RegisterAll();
    if (!registered.ok()) co_return registered;
  }
  for (const lease::Claimed& claim : claimed->claims) {
    MailboxRef mailbox = catalog_.Find(claim.id);
    if (mailbox == nullptr || !mailbox->enabled()) {
      absl::Status removed = co_await schedule_.Remove(claim.id);
      if (!removed.ok()) co_return removed;
      continue;
    }
    auto running = std::make_shared<Running>(context_.executor);
    running->mailbox_id = claim.id;
    const FolderKey folder = FolderKeyOf(*mailbox);
    {
      std::lock_guard lock(mutex_);
      if (draining_ || running_.contains(claim.id)) continue;
      std::shared_ptr<Hold>& hold = holds_[claim.id];
      const bool same = hold != nullptr && hold->folder.mailbox.key == folder.mailbox.key &&
                        hold->folder.generation == folder.generation && hold->folder.folder == folder.folder;
      // A lease that somebody else held in between, or that Redis forgot, is a broken one: cursor and fence anew.
      if (!claim.unbroken || !same || hold->lost) {
        hold = std::make_shared<Hold>();
        hold->folder = folder;
      }
      running->hold = hold;
      running_[claim.id] = running;
    }
    polls_.Spawn(RunOne(running, mailbox));
  }
  if (static_cast<int>(claimed->claims.size()) == wanted) co_return absl::ZeroDuration();
  co_return claimed->next_due_in.value_or(kMaxIdle);
}

async::Task<void> Worker::RenewLoop() {
  while (true) {
    if (absl::Status s = co_await async::Sleep(options_.renew_every); absl::IsCancelled(s)) co_return;
    std::vector<std::string> ids;
    {
      std::lock_guard lock(mutex_);
      for (const auto& [id, running] : running_) ids.push_back(id);
    }
    if (ids.empty()) continue;
    absl::StatusOr<std::vector<lease::RenewAnswer>> answers = co_await schedule_.Renew(ids);
    if (!answers.ok()) continue;  // Redis is away: go on; the fence decides who may write
    std::vector<std::pair<std::string, absl::Duration>> absent;
    {
      std::lock_guard lock(mutex_);
      for (size_t i = 0; i < ids.size(); ++i) {
        if ((*answers)[i] == lease::RenewAnswer::kAbsent) absent.emplace_back(ids[i], options_.lease);
        auto it = running_.find(ids[i]);
        if ((*answers)[i] == lease::RenewAnswer::kLost && it != running_.end()) it->second->Stop();
      }
    }
    if (!absent.empty()) {
      absl::Status registered = co_await schedule_.Register(std::move(absent), false);
      if (!registered.ok()) continue;  // the next turn tries again
    }
  }
}

async::Task<void> Worker::Fetch(Running& running, MailboxRef mailbox) {
  running.report = co_await RunFetch(context_, std::move(mailbox), *running.hold, running.stop);
}

// Takes back the attempts that this process counted for the mailbox. Without a fence it counted none.
async::Task<void> Worker::Uncount(Running& running) {
  if (running.hold->fence == 0) co_return;
  const FolderKey folder = running.hold->folder;
  auto uncount = [this, folder](sql::Transaction& tx) {
    return UncountAttempts(tx, folder, context_.committer.holder());
  };
  absl::Status uncounted = co_await context_.committer.Commit(*running.hold, uncount);
  if (!uncounted.ok()) {
    observe::Log(observe::Level::kInfo, "poll.uncount_failed",
                 {{"mailbox", running.mailbox_id}, {"error", std::string(uncounted.message())}});
  }
}

// Polls once; returns when to poll again.
async::Task<absl::Duration> Worker::Poll(Running& running, const MailboxRef& mailbox) {
  const absl::Time started = absl::Now();
  const absl::Duration interval = IntervalOf(*mailbox);
  context_.board.PollStarted(running.mailbox_id, started);
  context_.metrics.sessions.Increment();
  running.scope.Spawn(Fetch(running, mailbox));
  co_await running.scope.Join();
  const absl::StatusOr<FetchReport>& report = running.report;
  context_.metrics.sessions.Decrement();
  if (report.ok()) {
    const absl::Duration next = Jittered(interval, running.mailbox_id);
    context_.metrics.polls_ok.Increment();
    context_.board.PollSucceeded(running.mailbox_id, started, absl::Now() + next, report->notice);
    if (report->listed > 0 || report->published > 0) {
      observe::Log(observe::Level::kInfo, "poll.imported",
                   {{"mailbox", running.mailbox_id}, {"listed", report->listed}, {"published", report->published}});
    }
    co_return next;
  }
  const absl::Status& status = report.status();
  if (running.stop || absl::IsCancelled(status)) {
    // An orderly end is no death: what was counted as begun is taken back (I4).
    co_await Uncount(running);
    running.hold->cursor_known = false;
    running.hold->fence = 0;
    co_return absl::ZeroDuration();
  }
  if (absl::IsAborted(status)) {
    // Fenced, or the cursor moved: nothing is wrong with the mailbox.
    observe::Log(observe::Level::kInfo, "poll.given_up",
                 {{"mailbox", running.mailbox_id}, {"reason", std::string(status.message())}});
    running.hold->cursor_known = false;
    running.hold->fence = 0;
    co_return absl::Seconds(1);
  }
  // This process lives: what it began and could not finish was no death (I4), whoever tries next.
  if (!running.hold->lost) co_await Uncount(running);
  // Whatever was in hand, the next poll reads the cursor anew.
  running.hold->cursor_known = false;
  running.hold->fence = 0;
  const Failure failure = Classify(status, *mailbox);
  const int failures = context_.board.PollFailed(running.mailbox_id, failure.reason, failure.reason_text, absl::Now());
  const absl::Duration next = RetryDelay(failure, failures, interval);
  context_.board.SetNext(running.mailbox_id, absl::Now() + next);
  context_.metrics.polls_failed.Increment();
  observe::Log(observe::Level::kWarning, "poll.failed",
               {{"mailbox", running.mailbox_id}, {"reason", failure.reason}, {"text", failure.reason_text}});
  co_return next;
}

async::Task<void> Worker::RunOne(std::shared_ptr<Running> running, MailboxRef mailbox) {
  const absl::Duration next = co_await Poll(*running, mailbox);
  bool draining = false;
  bool removed = false;
  bool again = false;
  {
    std::lock_guard lock(mutex_);
    draining = draining_;
    removed = running->removed;
    again = running->again;
  }
  absl::Status ended;
  if (removed) {
    ended = co_await schedule_.Remove(running->mailbox_id);
  } else if (draining) {
    ended = co_await schedule_.Release(running->mailbox_id);
  } else {
    ended = co_await schedule_.Done(running->mailbox_id, again ? absl::ZeroDuration() : next);
  }
  if (!ended.ok()) {
    observe::Log(observe::Level::kInfo, "schedule.done_failed",
                 {{"mailbox", running->mailbox_id}, {"error", std::string(ended.message())}});
  }
  {
    std::lock_guard lock(mutex_);
    running_.erase(running->mailbox_id);
    if (removed) holds_.erase(running->mailbox_id);
  }
  if (next < kMaxIdle || again) wake_.Notify();
}

}  // namespace poststelle::fetcher
