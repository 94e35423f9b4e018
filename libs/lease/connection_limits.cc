#include "libs/lease/connection_limits.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <vector>

#include "absl/strings/str_cat.h"
#include "libs/base/status_macros.h"

namespace poststelle::lease {
namespace {

// How long a granted place that nobody uses is kept.
constexpr absl::Duration kKeepIdle = absl::Seconds(1);
// Places of other workers become free without a word to us: look again this often.
constexpr absl::Duration kLookAgain = absl::Milliseconds(100);
// So many may wait for one host in this process, as a multiple of its limit; more would only hold sessions.
constexpr int kWaitersPerPlace = 2;

// The key holds worker → "count:expiry in ms". Sets the worker's count to what it wants if the others leave room, or to
// what is left; lowering always succeeds. Answers the count it has now. Repeatable.
const std::string kSet = R"(
local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000)
local me, want, limit, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local others, all = 0, redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if all[i] ~= me then
    local count, expiry = all[i + 1]:match('^(%d+):(%d+)$')
    if not count or tonumber(expiry) <= now then redis.call('HDEL', KEYS[1], all[i]) else others = others + tonumber(count) end
  end
end
local got = math.max(0, math.min(want, limit - others))
if got == 0 then
  redis.call('HDEL', KEYS[1], me)
else
  redis.call('HSET', KEYS[1], me, got .. ':' .. (now + lease))
  redis.call('PEXPIRE', KEYS[1], lease)
end
return got)";

}  // namespace

// Places at one host or one account.
struct ConnectionLimits::State {
  explicit State(asio::any_io_executor e) : executor(std::move(e)) {}
  struct Place {
    explicit Place(const asio::any_io_executor& executor) : freed(executor) {}
    int granted = 0;  // by Redis (or by ourselves while it is away)
    int used = 0;
    int waiting = 0;
    bool asking = false;  // one question at a time
    absl::Time last_used;
    async::Event freed;
  };
  asio::any_io_executor executor;
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<Place>> places;

  std::shared_ptr<Place> At(const std::string& key) {  // under mutex
    std::shared_ptr<Place>& place = places[key];
    if (place == nullptr) place = std::make_shared<Place>(executor);
    return place;
  }
};

struct ConnectionLimits::Permit::Slot {
  Slot(std::shared_ptr<State> s, std::string k) : state(std::move(s)), key(std::move(k)) {}
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;
  ~Slot() {
    std::shared_ptr<State::Place> place;
    {
      std::lock_guard lock(state->mutex);
      place = state->At(key);
      --place->used;
      place->last_used = absl::Now();
    }
    place->freed.Notify();
  }
  const std::shared_ptr<State> state;
  const std::string key;
};

ConnectionLimits::Permit::Permit() = default;
ConnectionLimits::Permit::Permit(Permit&&) noexcept = default;
ConnectionLimits::Permit& ConnectionLimits::Permit::operator=(Permit&&) noexcept = default;
ConnectionLimits::Permit::~Permit() = default;

ConnectionLimits::ConnectionLimits(asio::any_io_executor executor, redis::Commands& redis, std::string holder,
                                   ConnectionLimitOptions options)
    : state_(std::make_shared<State>(std::move(executor))),
      redis_(redis),
      holder_(std::move(holder)),
      options_(options) {}

ConnectionLimits::~ConnectionLimits() = default;

// Asks Redis for `want` places at `key`; answers how many this worker has now.
async::Task<absl::StatusOr<int>> ConnectionLimits::Ask(const std::string& key, int want, int limit) {
  std::vector<std::string> arguments{holder_, absl::StrCat(want), absl::StrCat(limit),
                                     absl::StrCat(absl::ToInt64Milliseconds(options_.lease))};
  std::vector<std::string> keys{absl::StrCat("poststelle:{", key, "}:connections")};
  PS_CO_ASSIGN_OR_RETURN(redis::Reply reply, co_await redis_.Eval(kSet, std::move(keys), std::move(arguments)));
  co_return static_cast<int>(reply.integer);
}

// Takes a place if one is granted and free, or if one more is granted now.
async::Task<bool> ConnectionLimits::TakeOne(const std::string& key, int limit) {
  std::shared_ptr<State::Place> place;
  int want = 0;
  {
    std::lock_guard lock(state_->mutex);
    place = state_->At(key);
    if (place->used < place->granted) {
      ++place->used;
      co_return true;
    }
    if (place->used >= limit || place->asking) co_return false;
    place->asking = true;
    want = place->used + 1;
  }
  const absl::StatusOr<int> reply = co_await Ask(key, want, limit);
  std::lock_guard lock(state_->mutex);
  place->asking = false;
  // Redis away: the limit holds in this process at least.
  if (absl::IsCancelled(reply.status())) co_return false;
  const int granted = reply.ok() ? *reply : std::min(limit, want);
  place->granted = granted;
  if (place->used >= granted) co_return false;
  ++place->used;
  place->last_used = absl::Now();
  co_return true;
}

async::Task<absl::StatusOr<ConnectionLimits::Permit>> ConnectionLimits::Acquire(std::string host, std::string account,
                                                                                absl::Duration patience) {
  Permit permit;
  const absl::Time deadline = absl::Now() + patience;
  struct Wanted {
    std::string key;
    int limit;
    std::unique_ptr<Permit::Slot>* slot;
  };
  // The account first: whoever waits for it must not keep a place of the host.
  std::vector<Wanted> wanted;
  wanted.push_back({absl::StrCat("account/", host, "/", account), options_.per_account, &permit.account_});
  wanted.push_back({absl::StrCat("host/", host), options_.per_host, &permit.host_});
  for (const Wanted& w : wanted) {
    std::shared_ptr<State::Place> place;
    {
      std::lock_guard lock(state_->mutex);
      place = state_->At(w.key);
      if (place->waiting >= kWaitersPerPlace * w.limit) {
        co_return absl::ResourceExhaustedError(absl::StrCat("many wait for a connection to ", host, " already"));
      }
      ++place->waiting;
    }
    absl::Status status;
    while (true) {
      const bool taken = co_await TakeOne(w.key, w.limit);
      if (taken) {
        *w.slot = std::make_unique<Permit::Slot>(state_, w.key);
        break;
      }
      const absl::Duration left = deadline - absl::Now();
      if (left <= absl::ZeroDuration()) {
        status = absl::ResourceExhaustedError(
            absl::StrCat("no connection to ", host, " was free for ", absl::FormatDuration(patience)));
        break;
      }
      status = co_await place->freed.Wait(std::min(left, kLookAgain));
      if (absl::IsCancelled(status)) break;
      status = absl::OkStatus();
    }
    {
      std::lock_guard lock(state_->mutex);
      --place->waiting;
    }
    if (!status.ok()) co_return status;
  }
  co_return permit;
}

async::Task<void> ConnectionLimits::Sweep() {
  std::vector<std::pair<std::string, std::shared_ptr<State::Place>>> places;
  {
    std::lock_guard lock(state_->mutex);
    for (auto it = state_->places.begin(); it != state_->places.end();) {
      const std::shared_ptr<State::Place>& place = it->second;
      if (place->granted == 0 && place->used == 0 && place->waiting == 0 && !place->asking) {
        it = state_->places.erase(it);
        continue;
      }
      places.emplace_back(*it);
      ++it;
    }
  }
  for (const auto& [key, place] : places) {
    int want = 0;
    {
      std::lock_guard lock(state_->mutex);
      if (place->asking) continue;
      const bool idle = place->used < place->granted && absl::Now() - place->last_used > kKeepIdle;
      want = idle ? place->used : std::max(place->granted, place->used);
      if (want == 0 && place->granted == 0) continue;
      place->asking = true;
      place->granted = want;
    }
    const bool host = key.starts_with("host/");
    const absl::StatusOr<int> reply = co_await Ask(key, want, host ? options_.per_host : options_.per_account);
    // What Redis does not hear of now expires there, or is said again at the next turn. After it was away, or was
    // wiped, the others may have left less than is granted here: then no more is used until it is.
    std::lock_guard lock(state_->mutex);
    place->asking = false;
    if (reply.ok()) place->granted = *reply;
  }
}

}  // namespace poststelle::lease
