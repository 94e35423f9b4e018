#include "services/fetcher/feed_hub.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "libs/base/ids.h"
#include "libs/base/status_macros.h"
#include "libs/observe/log.h"

namespace poststelle::fetcher {
namespace {

constexpr absl::Duration kRetry = absl::Milliseconds(200);
constexpr absl::Duration kFirstPause = absl::Milliseconds(200);
constexpr absl::Duration kLongestPause = absl::Seconds(10);
constexpr absl::Duration kLongestLeave = absl::Seconds(3);

// Worth another try of the same transaction.
bool IsTransient(const absl::Status& status) { return absl::IsUnavailable(status) || absl::IsAborted(status); }

void AddShare(google::protobuf::RepeatedPtrField<v1::SubscribeResponse::Share>* shares, int partition,
              int64_t generation) {
  v1::SubscribeResponse::Share* share = shares->Add();
  share->set_partition(partition);
  share->set_generation(generation);
}

void Warn(const char* event, const absl::Status& status) {
  observe::Log(observe::Level::kWarning, event, {{"error", std::string(status.message())}});
}

// With the member's mutex held. Takes over what the database says; the differences are told to the consumer.
void TakeHolding(Member& member, const Subscriptions::Holding& holding, absl::Duration hand_over) {
  v1::SubscribeResponse response;
  v1::SubscribeResponse::Assignment* assignment = response.mutable_assignment();
  for (auto it = member.parts.begin(); it != member.parts.end();) {
    const auto held = holding.held.find(it->first);
    if (held != holding.held.end() && held->second.generation == it->second.generation) {
      ++it;
      continue;
    }
    AddShare(assignment->mutable_revoked(), it->first, it->second.generation);
    it = member.parts.erase(it);
  }
  for (const auto& [partition, held] : holding.held) {
    auto [it, gained] = member.parts.try_emplace(partition);
    Member::Part& part = it->second;
    if (gained) {
      part.generation = held.generation;
      part.acknowledged = part.sent = held.acknowledged;
      AddShare(assignment->mutable_gained(), partition, held.generation);
    }
    if (held.wanted && !part.wanted) part.release_by = absl::Now() + hand_over;
    part.wanted = held.wanted;
  }
  member.idle = member.parts.empty() && holding.expected == 0;
  if (assignment->gained_size() + assignment->revoked_size() > 0) member.outbox.push_back(std::move(response));
}

}  // namespace

FeedHub::FeedHub(asio::any_io_executor executor, TicketFeed& feed, Subscriptions& subscriptions, Options options)
    : feed_(feed),
      subscriptions_(subscriptions),
      options_(options),
      executor_(executor),
      submitted_(executor),
      scope_(executor) {
  scope_.Spawn(LookLoop());
  scope_.Spawn(StepLoop());
}

FeedHub::~FeedHub() {
  scope_.Cancel();
  scope_.JoinBlocking();
}

std::vector<std::shared_ptr<Member>> FeedHub::Members() const {
  std::lock_guard lock(mutex_);
  return members_;
}

std::shared_ptr<const Offsets> FeedHub::Heads() const {
  std::lock_guard lock(mutex_);
  return heads_;
}

async::Task<absl::StatusOr<std::shared_ptr<Member>>> FeedHub::Join(std::string subscription, bool from_now) {
  auto member = std::make_shared<Member>(executor_, subscription, RandomId());
  const absl::Status joined = co_await subscriptions_.Join(subscription, member->id, from_now);
  std::lock_guard lock(mutex_);
  if (!joined.ok()) {
    leaving_.push_back(member);  // its commit may have come through all the same
    co_return joined;
  }
  members_.push_back(member);
  feed_.Committed();  // look at once
  co_return member;
}

async::Task<absl::Status> FeedHub::Leave(std::shared_ptr<Member> member) {
  absl::Status durable;
  const absl::Time patience = absl::Now() + kLongestLeave;
  while (true) {
    {
      std::lock_guard lock(member->mutex);
      if (member->failed) durable = *member->failed;
      if (member->unsettled == 0) break;
    }
    if (absl::Now() > patience) {
      durable = absl::UnavailableError("the last acknowledgements could not be stored");
      break;
    }
    (co_await member->changed.Wait(absl::Milliseconds(100))).IgnoreError();
  }
  {
    std::lock_guard lock(mutex_);
    std::erase(members_, member);
  }
  const absl::Status left = co_await subscriptions_.Leave(member->name, member->id);
  if (!left.ok()) {
    // Renewed with all the others of this process, it would never expire.
    std::lock_guard lock(mutex_);
    leaving_.push_back(member);
  }
  feed_.Committed();
  co_return durable;
}

void FeedHub::Submit(const std::shared_ptr<Member>& member, Subscriptions::Step step) {
  step.name = member->name;
  step.member = member->id;
  {
    std::lock_guard lock(mutex_);
    auto same = std::find_if(queue_.begin(), queue_.end(), [&](const Queued& q) {
      return q.member == member && q.step.partition == step.partition && q.step.generation == step.generation &&
             !q.step.refusal && !step.refusal;
    });
    if (same != queue_.end()) {
      same->step.offset = std::max(same->step.offset, step.offset);
      return;
    }
    {
      std::lock_guard member_lock(member->mutex);
      ++member->unsettled;
    }
    queue_.push_back({member, std::move(step)});
  }
  submitted_.Notify();
}

void FeedHub::Settled(const Queued& queued, const absl::Status& committed) {
  const Subscriptions::Step& step = queued.step;
  Member& member = *queued.member;
  {
    std::lock_guard lock(member.mutex);
    --member.unsettled;
    auto it = member.parts.find(step.partition);
    Member::Part* part = it != member.parts.end() && it->second.generation == step.generation ? &it->second : nullptr;
    if (!committed.ok()) {
      member.failed = committed;
    } else if (absl::IsAborted(step.result)) {
      v1::SubscribeResponse response;
      auto* refused = response.mutable_acknowledgement_refused();
      refused->mutable_position()->set_epoch(subscriptions_.info().epoch);
      refused->mutable_position()->set_partition(step.partition);
      refused->mutable_position()->set_offset(step.offset);
      refused->set_generation(step.generation);
      member.outbox.push_back(std::move(response));
      if (part != nullptr && step.refusal) part->refused = 0;
    } else if (!step.result.ok()) {
      member.failed = step.result;
    } else if (step.refusal) {
      const bool again = step.refusals < step.refusal->max_refusals;
      const double factor = static_cast<double>(int64_t{1} << std::min<int64_t>(step.refusals - 1, 20));
      if (again) member.pauses[step.partition] = absl::Now() + std::min(kLongestPause, kFirstPause * factor);
    } else if (part != nullptr) {
      part->acknowledged = std::max(part->acknowledged, step.offset);
    }
  }
  member.changed.Notify();
}

async::Task<void> FeedHub::StepLoop() {
  while (true) {
    std::vector<Queued> taken;
    {
      std::lock_guard lock(mutex_);
      taken.swap(queue_);
    }
    if (taken.empty()) {
      if (absl::IsCancelled(co_await submitted_.Wait(absl::Seconds(10)))) co_return;
      if (absl::IsCancelled(co_await async::Sleep(options_.gather))) co_return;
      continue;
    }
    std::vector<Subscriptions::Step> steps;
    steps.reserve(taken.size());
    for (const Queued& queued : taken) steps.push_back(queued.step);
    absl::Status committed = co_await subscriptions_.Apply(steps);
    while (IsTransient(committed)) {
      Warn("feed.acknowledge_failed", committed);
      if (absl::IsCancelled(co_await async::Sleep(kRetry))) break;
      committed = co_await subscriptions_.Apply(steps);
    }
    bool look = false;
    for (size_t i = 0; i < taken.size(); ++i) {
      taken[i].step = std::move(steps[i]);
      Settled(taken[i], committed);
      std::lock_guard lock(taken[i].member->mutex);
      for (const auto& [partition, part] : taken[i].member->parts) look = look || part.wanted;
      look = look || taken[i].step.refusal.has_value();
    }
    if (look) feed_.Committed();
  }
}

async::Task<void> FeedHub::LookLoop() {
  while (true) {
    bool nobody = false;
    {
      std::lock_guard lock(mutex_);
      nobody = members_.empty() && leaving_.empty();
    }
    const absl::Status woken = co_await feed_.WaitCommitted(nobody ? absl::Seconds(10) : options_.look_every);
    if (absl::IsCancelled(woken)) co_return;
    if (nobody && Members().empty()) continue;
    const absl::Status looked = co_await LookOnce();
    if (looked.ok()) continue;
    Warn("feed.look_failed", looked);
    if (absl::IsCancelled(co_await async::Sleep(kRetry))) co_return;
  }
}

async::Task<absl::Status> FeedHub::LookOnce() {
  PS_CO_RETURN_IF_ERROR(co_await FinishLeaves());
  if (absl::Now() - renewed_ > subscriptions_.lease() / 3) {
    PS_CO_RETURN_IF_ERROR(co_await Renew());
    renewed_ = absl::Now();
  }
  PS_CO_ASSIGN_OR_RETURN(Subscriptions::Pulse pulse, co_await subscriptions_.Look());
  for (const std::string& name : pulse.overdue) PS_CO_RETURN_IF_ERROR(co_await subscriptions_.Settle(name));
  if (!pulse.overdue.empty()) {
    PS_CO_ASSIGN_OR_RETURN(pulse, co_await subscriptions_.Look());
  }
  bool moved = false;
  {
    std::lock_guard lock(mutex_);
    moved = *heads_ != pulse.heads;
    if (moved) heads_ = std::make_shared<const Offsets>(std::move(pulse.heads));
  }
  const std::vector<std::shared_ptr<Member>> members = Members();
  std::set<std::string> names;
  for (const auto& member : members) names.insert(member->name);
  std::erase_if(versions_, [&names](const auto& entry) { return !names.contains(entry.first); });
  for (const std::string& name : names) {
    auto known = versions_.find(name);
    const int64_t version = pulse.versions[name];
    if (known != versions_.end() && known->second == version) continue;
    PS_CO_RETURN_IF_ERROR(co_await Refresh(name));
    versions_[name] = version;
  }
  for (const auto& member : members) {
    PS_CO_RETURN_IF_ERROR(co_await ReleaseWanted(member));
    if (moved) member->changed.Notify();
  }
  co_return absl::OkStatus();
}

async::Task<absl::Status> FeedHub::FinishLeaves() {
  std::vector<std::shared_ptr<Member>> leaving;
  {
    std::lock_guard lock(mutex_);
    leaving.swap(leaving_);
  }
  absl::Status first;
  for (const auto& member : leaving) {
    const absl::Status left = co_await subscriptions_.Leave(member->name, member->id);
    if (left.ok()) continue;
    first.Update(left);
    std::lock_guard lock(mutex_);
    leaving_.push_back(member);
  }
  co_return first;
}

async::Task<absl::Status> FeedHub::Renew() {
  PS_CO_ASSIGN_OR_RETURN(const int64_t known, co_await subscriptions_.Renew());
  const std::vector<std::shared_ptr<Member>> members = Members();
  if (known >= static_cast<int64_t>(members.size())) co_return absl::OkStatus();
  // Others took some of them for dead (this process stood still): they join anew.
  for (const auto& member : members) {
    PS_CO_RETURN_IF_ERROR(co_await subscriptions_.Join(member->name, member->id, false));
    std::lock_guard lock(mutex_);
    const bool left = std::find(members_.begin(), members_.end(), member) == members_.end();
    if (left) leaving_.push_back(member);
  }
  co_return absl::OkStatus();
}

async::Task<absl::Status> FeedHub::Refresh(std::string name) {
  PS_CO_ASSIGN_OR_RETURN(auto holdings, co_await subscriptions_.Holdings(name));
  for (const auto& member : Members()) {
    if (member->name != name) continue;
    {
      std::lock_guard lock(member->mutex);
      TakeHolding(*member, holdings[member->id], options_.hand_over);
    }
    member->changed.Notify();
  }
  co_return absl::OkStatus();
}

async::Task<absl::Status> FeedHub::ReleaseWanted(std::shared_ptr<Member> member) {
  std::vector<std::pair<int, int64_t>> partitions;
  {
    std::lock_guard lock(member->mutex);
    for (const auto& [partition, part] : member->parts) {
      const bool quiet = part.acknowledged == part.sent;
      if (part.wanted && (quiet || absl::Now() > part.release_by)) partitions.emplace_back(partition, part.generation);
    }
  }
  if (partitions.empty()) co_return absl::OkStatus();
  PS_CO_RETURN_IF_ERROR(co_await subscriptions_.Release(member->name, member->id, std::move(partitions)));
  feed_.Committed();
  co_return absl::OkStatus();
}

}  // namespace poststelle::fetcher
