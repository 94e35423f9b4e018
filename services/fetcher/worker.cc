#include "services/fetcher/worker.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "libs/base/failpoint.h"
#include "libs/base/status_macros.h"
#include "libs/lease/claim_round.h"
#include "libs/observe/log.h"
#include "services/fetcher/failure_policy.h"

namespace poststelle::fetcher {
namespace {

// Claims a call: Redis serves nobody else meanwhile.
constexpr int kClaimBatch = 256;
// Polls are spread by a little, so that mailboxes made together do not stay together.
constexpr double kJitter = 0.05;
constexpr absl::Duration kRedisRetry = absl::Seconds(1);
constexpr absl::Duration kMaxIdle = absl::Seconds(1);
// Looking more often than this finds little more and costs Redis a scan of what is others' turn.
constexpr absl::Duration kMinPause = absl::Milliseconds(20);
// When to look again at a mailbox in the schedule that this worker does not know (yet, or any more).
constexpr absl::Duration kUnknownAgain = absl::Seconds(5);
constexpr int kUnknownTimes = 3;
// A mailbox may be missing in the schedule for a moment, while another worker brings in a change. What is missing for
// longer was taken out by a worker that does not know it.
constexpr absl::Duration kShortFor = absl::Seconds(5);
// Filling the schedule costs Redis something: not over and over where it does not help.
constexpr absl::Duration kRefillAgain = absl::Seconds(30);
// How long a poll waits for a free connection to its host before it makes room for other mailboxes.
constexpr absl::Duration kConnectionPatience = absl::Seconds(5);

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
  bool begun = false;    // it had a connection to its host
  bool again = false;    // the mailbox changed meanwhile: poll at once (under mutex_)
  bool removed = false;  // deleted or disabled (under mutex_)
  bool taken = false;    // the schedule says that another worker holds it (under mutex_)
};

Worker::Worker(FetchContext& context, MailboxCatalog& catalog, lease::Schedule& schedule,
               lease::ConnectionLimits& limits, WorkerOptions options, std::function<void(bool)> redis_ready)
    : context_(context),
      catalog_(catalog),
      schedule_(schedule),
      limits_(limits),
      options_(options),
      redis_ready_(std::move(redis_ready)),
      wake_(context.executor),
      changed_(context.executor),
      to_register_(context.executor),
      finished_(context.executor, schedule, [this](const absl::Status& told) { Finished(told); }),
      claiming_(context.executor),
      loops_(context.executor),
      polls_(context.executor),
      finishing_(context.executor) {}

Worker::~Worker() { Drain(); }

void Worker::Start() {
  catalog_.OnChange([this](const CatalogChange& change) { OnCatalogChange(change); });
  claiming_.Spawn(ClaimLoop());
  loops_.Spawn(RenewLoop());
  loops_.Spawn(SweepLoop());
  loops_.Spawn(ApplyChanges());
  loops_.Spawn(RegisterLoop());
  finishing_.Spawn(finished_.Run());
}

void Worker::Drain() {
  {
    std::lock_guard lock(mutex_);
    if (draining_) return;
    draining_ = true;
    for (auto& [id, running] : running_) running->Stop();
  }
  catalog_.OnChange(nullptr);
  wake_.Notify();
  // Not cancelled: an answer to a claim that nobody reads would be a mailbox that waits for the end of its lease.
  claiming_.JoinBlocking();
  polls_.JoinBlocking();
  // Not cancelled either: what it is telling Redis is to arrive.
  finished_.Close();
  finishing_.JoinBlocking();
  loops_.Cancel();
  loops_.JoinBlocking();
  async::TaskScope last(context_.executor);
  last.Spawn([](Worker& worker) -> async::Task<void> {
    absl::Status told = co_await worker.schedule_.Leave();
    // Redis away: the leases run out by themselves.
    if (!told.ok())
      observe::Log(observe::Level::kInfo, "schedule.leave_failed", {{"error", std::string(told.message())}});
  }(*this));
  last.JoinBlocking();
}

bool Worker::draining() const {
  std::lock_guard lock(mutex_);
  return draining_;
}

void Worker::OnCatalogChange(const CatalogChange& change) {
  {
    std::lock_guard lock(mutex_);
    changes_.insert(change.mailbox_id);
    unknown_.erase(change.mailbox_id);
    const bool gone = change.mailbox == nullptr || !change.mailbox->enabled();
    if (auto it = running_.find(change.mailbox_id); it != running_.end()) {
      it->second->again = !gone;
      it->second->removed = gone;
      it->second->Stop();  // what was listed with the old settings is finished with the new ones
    } else if (gone) {
      mine_.erase(change.mailbox_id);
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
        lease::Member member;
        member.id = id;
        std::vector<lease::Member> entry{member};
        done = co_await schedule_.Register(std::move(entry), false);
        if (done.ok()) done = co_await schedule_.Touch(id);
      } else {
        done = co_await schedule_.Remove(id);
      }
      if (done.ok()) {
        // It may have changed while Redis answered.
        const MailboxRef present = catalog_.Find(id);
        if (present == mailbox) continue;
        std::lock_guard lock(mutex_);
        changes_.insert(id);
        continue;
      }
      if (absl::IsCancelled(done)) co_return;
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

// Beside the claims, which go on meanwhile: with many mailboxes filling takes seconds.
async::Task<void> Worker::RegisterLoop() {
  while (true) {
    if (absl::Status s = co_await to_register_.Wait(kMaxIdle); absl::IsCancelled(s)) co_return;
    {
      std::lock_guard lock(mutex_);
      if (registered_ || away_ || draining_ || !catalog_.synced()) continue;
    }
    const absl::Status registered = co_await RegisterAll();
    if (absl::IsCancelled(registered)) co_return;
    if (registered.ok()) {
      {
        std::lock_guard lock(mutex_);
        registered_ = true;
        registered_at_ = absl::Now();
      }
      wake_.Notify();
      continue;
    }
    observe::Log(observe::Level::kWarning, "schedule.fill_failed", {{"error", std::string(registered.message())}});
    if (absl::Status s = co_await async::Sleep(kRedisRetry); absl::IsCancelled(s)) co_return;
  }
}

// Fills the schedule from the catalog: at start, and after Redis was wiped. What this worker polls or polled last takes
// its place and its due time again; the rest is spread over a lease time, without a herd, and later than the others
// need to take their own places again. A proposal is kept over further wipes, so that its time does come.
async::Task<absl::Status> Worker::RegisterAll() {
  std::vector<lease::Member> members;
  const absl::Time now = absl::Now();
  for (const MailboxRef& mailbox : catalog_.List()) {
    if (!mailbox->enabled()) continue;
    lease::Member member;
    member.id = MailboxIdOf(mailbox->name());
    {
      std::lock_guard lock(mutex_);
      if (running_.contains(member.id)) {
        member.delay = options_.lease;
        member.mine = true;
      } else if (auto it = mine_.find(member.id); it != mine_.end()) {
        if (now - it->second.due > 3 * options_.lease) {
          mine_.erase(it);  // somebody else has had it since, or it would not be so late
        } else {
          member.delay = it->second.due - now;
          member.mine = true;
        }
      }
    }
    if (!member.mine) {
      absl::Time& due = proposed_[member.id];
      if (now - due > 3 * options_.lease) {
        const double part = 0.2 + 0.8 * static_cast<double>(std::hash<std::string>()(member.id) % 1000) / 1000.0;
        due = now + std::min(options_.lease, IntervalOf(*mailbox)) * part;
      }
      member.delay = due - now;
    }
    members.push_back(std::move(member));
  }
  co_return co_await schedule_.Register(std::move(members), true);
}

async::Task<void> Worker::ClaimLoop() {
  while (!draining()) {
    absl::Duration idle = kMaxIdle;
    if (!catalog_.synced()) {
      idle = absl::Milliseconds(100);
    } else {
      absl::Status status = co_await ClaimAll(idle);
      if (absl::IsCancelled(status)) co_return;
      bool registered = false;
      {
        std::lock_guard lock(mutex_);
        away_ = !status.ok();
        if (away_) registered_ = false;  // it may come back empty, or as it once was
        registered = registered_;
      }
      redis_ready_(status.ok());
      if (status.ok() && !registered) to_register_.Notify();
      if (!status.ok()) {
        observe::Log(observe::Level::kWarning, "schedule.unavailable", {{"error", std::string(status.message())}});
        ForgetCursors();
        idle = kRedisRetry;
        absl::Status polled = co_await PollMineWithoutRedis(idle);
        if (!polled.ok()) {
          observe::Log(observe::Level::kWarning, "poll.fences_unreadable", {{"error", std::string(polled.message())}});
        }
      }
    }
    // A worker with room found everything that was due: an end of a poll changes nothing about that.
    const bool full = idle <= absl::ZeroDuration() || free_sessions() == 0;
    if (!full) (co_await async::Sleep(kMinPause)).IgnoreError();
    (co_await wake_.Wait(std::max(idle - kMinPause, full ? kMinPause : absl::ZeroDuration()))).IgnoreError();
  }
}

// A claim whose answer was lost, or a schedule that was lost, says "unbroken" of what somebody else may have had since.
void Worker::ForgetCursors() {
  std::lock_guard lock(mutex_);
  for (auto& [id, mine] : mine_) {
    if (!running_.contains(id) && mine.hold != nullptr) mine.hold->cursor_known = false;
  }
}

// One round over the shards, all of them at once as far as there are sessions for. `idle` becomes shorter where
// something is due before.
async::Task<absl::Status> Worker::ClaimAll(absl::Duration& idle) {
  const absl::Time begun = absl::Now();
  const int free = static_cast<int>(std::min<size_t>(free_sessions(), lease::kShards * kClaimBatch));
  // Without a session to spare each shard is still asked once: it is a sign of life.
  const int at_once = std::clamp(free, 1, lease::kShards);
  const int wanted = free == 0 ? 0 : std::max(1, free / lease::kShards);
  lease::Claimant claimant;
  claimant.wanted = [this, wanted] { return draining() ? 0 : std::min(wanted, static_cast<int>(free_sessions())); };
  claimant.hungry = [this] {
    std::lock_guard lock(mutex_);
    return share_ == 0 || held_ < share_;
  };
  claimant.take = [this](lease::ClaimResult& claimed) { return Take(claimed); };
  PS_CO_ASSIGN_OR_RETURN(const lease::ClaimTotals totals,
                         co_await lease::ClaimRound(context_.executor, schedule_, claimant, at_once));
  if (totals.next_due_in) idle = std::min(idle, *totals.next_due_in);
  // Nobody can start more than it may: a worker at its limit is woken by the end of a poll.
  if (free_sessions() == 0) idle = kMaxIdle;
  context_.metrics.held.Set(static_cast<double>(totals.held));
  context_.metrics.workers.Set(totals.workers);
  const bool too_few = Short(totals.members);
  bool wiped = false;
  {
    std::lock_guard lock(mutex_);
    held_ = totals.held;
    share_ = (totals.members + totals.workers - 1) / totals.workers;
    // What was asked before the schedule was filled says nothing of it now.
    wiped = totals.wiped && registered_ && begun > registered_at_;
    if (wiped || too_few) registered_ = false;
  }
  if (wiped) ForgetCursors();
  co_return absl::OkStatus();
}

// Whether the schedule has lacked mailboxes of the catalog for so long that they are to be brought in again.
bool Worker::Short(int64_t members) {
  if (members >= static_cast<int64_t>(catalog_.enabled())) {
    short_since_.reset();
    return false;
  }
  const absl::Time now = absl::Now();
  if (!short_since_) short_since_ = now;
  std::lock_guard lock(mutex_);
  if (!registered_ || now - *short_since_ < kShortFor || now - registered_at_ < kRefillAgain) return false;
  observe::Log(observe::Level::kWarning, "schedule.incomplete",
               {{"scheduled", members}, {"enabled", static_cast<int64_t>(catalog_.enabled())}});
  return true;
}

// Starts the polls of what was claimed in one shard.
async::Task<void> Worker::Take(lease::ClaimResult& claimed) {
  for (const lease::Claimed& claim : claimed.claims) {
    lease::Finished back;
    back.id = claim.id;
    back.keep = false;
    MailboxRef mailbox = catalog_.Find(claim.id);
    if (mailbox == nullptr || !mailbox->enabled()) {
      // Perhaps it is we who know an old configuration: only what stays unknown is taken out.
      bool stays = false;
      {
        std::lock_guard lock(mutex_);
        stays = ++unknown_[claim.id] >= kUnknownTimes;
        if (stays) unknown_.erase(claim.id);
      }
      if (stays) {
        absl::Status removed = co_await schedule_.Remove(claim.id);
        if (removed.ok()) continue;
      }
      back.due = absl::Now() + kUnknownAgain;
      finished_.Add(std::move(back));
      continue;
    }
    context_.metrics.lateness.Observe(absl::ToDoubleSeconds(claim.late));
    if (!claim.unbroken) {
      std::lock_guard lock(mutex_);
      ++held_;
    }
    if (StartPoll(mailbox, claim.unbroken)) continue;
    {
      std::lock_guard lock(mutex_);
      if (running_.contains(claim.id)) continue;  // its lease ran out under its poll, which is still ours: renewed
    }
    back.due = absl::Now();
    finished_.Add(std::move(back));
  }
}

// False while draining, or when it is being polled.
bool Worker::StartPoll(const MailboxRef& mailbox, bool unbroken) {
  auto running = std::make_shared<Running>(context_.executor);
  running->mailbox_id = MailboxIdOf(mailbox->name());
  const FolderKey folder = FolderKeyOf(*mailbox);
  {
    std::lock_guard lock(mutex_);
    if (draining_ || running_.contains(running->mailbox_id)) return false;
    Mine& mine = mine_[running->mailbox_id];
    const bool same = mine.hold != nullptr && mine.hold->folder.mailbox.key == folder.mailbox.key &&
                      mine.hold->folder.generation == folder.generation && mine.hold->folder.folder == folder.folder;
    // A lease that somebody else held in between, or that Redis forgot, is a broken one: cursor and fence anew.
    if (!unbroken || !same || mine.hold->lost) {
      mine.hold = std::make_shared<Hold>();
      mine.hold->folder = folder;
    }
    running->hold = mine.hold;
    running_[running->mailbox_id] = running;
    finished_.Forget(running->mailbox_id);
  }
  polls_.Spawn(RunOne(running, mailbox));
  return true;
}

// Goes on with what this worker polled last; whoever took one of these over meanwhile has moved its fence.
async::Task<absl::Status> Worker::PollMineWithoutRedis(absl::Duration& idle) {
  std::vector<std::shared_ptr<Hold>> due;
  const absl::Time now = absl::Now();
  size_t room = free_sessions();
  {
    std::lock_guard lock(mutex_);
    for (const auto& [id, mine] : mine_) {
      if (running_.contains(id) || mine.hold == nullptr) continue;
      if (mine.due > now) {
        idle = std::min(idle, mine.due - now);
      } else if (due.size() < room) {
        due.push_back(mine.hold);
      }
    }
  }
  if (due.empty()) co_return absl::OkStatus();
  std::vector<int64_t> fences;
  sql::Work work = [&due, &fences](sql::Transaction& tx) -> async::Task<absl::Status> {
    std::vector<std::string> keys;
    for (const std::shared_ptr<Hold>& hold : due) keys.push_back(hold->folder.mailbox.key);
    PS_CO_ASSIGN_OR_RETURN(fences, co_await ReadFences(tx, keys));
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await context_.database.Read(work));
  for (size_t i = 0; i < due.size(); ++i) {
    const std::string& id = due[i]->folder.mailbox.id;
    MailboxRef mailbox = catalog_.Find(id);
    if (mailbox == nullptr || !mailbox->enabled() || fences[i] != due[i]->seen_fence) {
      std::lock_guard lock(mutex_);
      mine_.erase(id);
      continue;
    }
    StartPoll(mailbox, true);
  }
  co_return absl::OkStatus();
}

// Apart from the renewals: it asks a question for each host, and must not hold them up.
async::Task<void> Worker::SweepLoop() {
  while (true) {
    if (absl::Status s = co_await async::Sleep(options_.renew_every); absl::IsCancelled(s)) co_return;
    co_await limits_.Sweep();
  }
}

async::Task<void> Worker::RenewLoop() {
  while (true) {
    if (absl::Status s = co_await async::Sleep(options_.renew_every); absl::IsCancelled(s)) co_return;
    if (DeliberatelyBroken("lease_not_renewed")) continue;
    std::vector<std::string> ids;
    {
      std::lock_guard lock(mutex_);
      for (const auto& [id, running] : running_) ids.push_back(id);
    }
    if (ids.empty()) continue;
    absl::StatusOr<std::vector<lease::RenewAnswer>> answers = co_await schedule_.Renew(ids);
    if (!answers.ok()) continue;  // Redis is away: go on; the fence decides who may write
    std::vector<lease::Member> absent;
    {
      std::lock_guard lock(mutex_);
      for (size_t i = 0; i < ids.size(); ++i) {
        auto it = running_.find(ids[i]);
        if (it == running_.end()) {
          // The renewal may have come after the end of a poll that was to be followed by the next at once.
          auto mine = mine_.find(ids[i]);
          if (mine == mine_.end()) continue;
          lease::Finished again;
          again.id = ids[i];
          again.due = mine->second.due;
          finished_.Add(std::move(again));
          continue;
        }
        if ((*answers)[i] == lease::RenewAnswer::kLost) {
          it->second->taken = true;
          it->second->Stop();
        } else if ((*answers)[i] == lease::RenewAnswer::kAbsent && !it->second->removed) {
          lease::Member member;
          member.id = ids[i];
          member.delay = options_.lease;
          member.mine = true;
          absent.push_back(std::move(member));
        }
      }
    }
    if (absent.empty()) continue;
    absl::Status registered = co_await schedule_.Register(std::move(absent), false);
    if (!registered.ok()) continue;  // the next turn tries again
  }
}

// The schedule heard of polls that ended, or could not be told.
void Worker::Finished(const absl::Status& told) {
  if (!told.ok() && !absl::IsCancelled(told)) {
    observe::Log(observe::Level::kInfo, "schedule.done_failed", {{"error", std::string(told.message())}});
  }
  wake_.Notify();
}

async::Task<void> Worker::Fetch(Running& running, MailboxRef mailbox) {
  const std::string host = absl::AsciiStrToLower(mailbox->connection().host());
  const std::string& login = mailbox->password_authentication().login_name();
  auto permit = co_await limits_.Acquire(host, login.empty() ? mailbox->address() : login, kConnectionPatience);
  if (!permit.ok()) {
    running.report = permit.status();
    co_return;
  }
  running.begun = true;
  context_.board.PollStarted(running.mailbox_id, absl::Now());
  running.report = co_await RunFetch(context_, std::move(mailbox), *running.hold, running.stop);
}

// Takes back the attempts that this process counted for the mailbox.
async::Task<void> Worker::Uncount(Running& running) {
  Hold& hold = *running.hold;
  if (hold.begun.empty()) co_return;
  // Not behind the fence: whoever holds the mailbox now, this process lives, so its attempts were no deaths.
  sql::Work work = [this, &hold](sql::Transaction& tx) {
    return UncountAttempts(tx, hold.begun, context_.committer.holder());
  };
  absl::Status uncounted = co_await context_.database.Write(work);
  if (uncounted.ok()) {
    hold.begun.clear();
    co_return;
  }
  observe::Log(observe::Level::kInfo, "poll.uncount_failed",
               {{"mailbox", running.mailbox_id}, {"error", std::string(uncounted.message())}});
}

// Polls once; returns when to poll again.
async::Task<absl::Duration> Worker::Poll(Running& running, const MailboxRef& mailbox) {
  const absl::Time started = absl::Now();
  const absl::Duration interval = IntervalOf(*mailbox);
  context_.metrics.sessions.Increment();
  running.scope.Spawn(Fetch(running, mailbox));
  co_await running.scope.Join();
  const absl::StatusOr<FetchReport>& report = running.report;
  context_.metrics.sessions.Decrement();
  if (report.ok()) {
    running.hold->begun.clear();
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
  // This process lives: what it began and could not finish was no death (I4), whoever tries next.
  co_await Uncount(running);
  if (running.begun) {
    // Whatever was in hand, the next poll reads the cursor anew.
    running.hold->cursor_known = false;
    running.hold->fence = 0;
  }
  if (running.hold->lost) context_.metrics.fenced.Increment();
  if (running.stop || absl::IsCancelled(status)) co_return absl::ZeroDuration();
  if (!running.begun && absl::IsResourceExhausted(status)) {
    context_.metrics.crowded.Increment();
    co_return Jittered(absl::Seconds(1), running.mailbox_id);
  }
  if (absl::IsAborted(status)) {
    // Fenced, or the cursor moved: nothing is wrong with the mailbox.
    observe::Log(observe::Level::kInfo, "poll.given_up",
                 {{"mailbox", running.mailbox_id}, {"reason", std::string(status.message())}});
    co_return std::min(interval, absl::Seconds(1));
  }
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
  const std::string& id = running->mailbox_id;
  bool removed = false;
  {
    std::lock_guard lock(mutex_);
    // Before the schedule hears of it: once it is due again, a claim must find it idle here.
    running_.erase(id);
    removed = running->removed;
    lease::Finished finished;
    finished.id = id;
    finished.due = absl::Now() + (running->again || draining_ ? absl::ZeroDuration() : next);
    const bool too_many = share_ > 0 && held_ > share_;
    const bool lost = running->taken || (away_ && running->hold->lost);
    finished.keep = !draining_ && !too_many && !lost;
    if (finished.keep && !removed) {
      mine_[id].due = finished.due;
    } else {
      mine_.erase(id);
    }
    if (too_many && !removed) --held_;
    // What is gone is taken out of the schedule by ApplyChanges, which heard of it too.
    if (!removed) finished_.Add(std::move(finished));
  }
  wake_.Notify();
}

}  // namespace poststelle::fetcher
