#include <map>

#include "absl/strings/str_cat.h"
#include "libs/base/ids.h"
#include "libs/base/status_macros.h"
#include "libs/lease/schedule.h"

namespace poststelle::lease {
namespace {

// Keys of a shard: 1 due (sorted set: member → ms), 2 holder (hash), 3 touched (hash), 4 marker. Time is Redis' own, so
// the workers' clocks do not matter.
constexpr char kNow[] = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000) ";

const std::string kClaim = absl::StrCat(kNow, R"(
local holder, max, lease, far = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. (now + far), '+inf', 'LIMIT', 0, 16)) do
  redis.call('ZADD', KEYS[1], now, id)
end
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, max)
local out = {}
for i = 1, #due, 2 do
  local id = due[i]
  local before = redis.call('HGET', KEYS[2], id)
  redis.call('ZADD', KEYS[1], now + lease, id)
  redis.call('HSET', KEYS[2], id, holder)
  out[#out + 1] = id
  out[#out + 1] = (before == holder) and 1 or 0
  out[#out + 1] = now - tonumber(due[i + 1])
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local wait = -1
if #first > 0 then wait = math.max(0, tonumber(first[2]) - now) end
return {redis.call('EXISTS', KEYS[4]), wait, out})");

const std::string kRenew = absl::StrCat(kNow, R"(
local out = {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local holder = redis.call('HGET', KEYS[2], id)
  if not holder then
    out[#out + 1] = 2
  elseif holder ~= ARGV[1] then
    out[#out + 1] = 1
  else
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), id)
    out[#out + 1] = 0
  end
end
return out)");

const std::string kDone = absl::StrCat(kNow, R"(
if redis.call('HGET', KEYS[2], ARGV[2]) ~= ARGV[1] then return 0 end
local delay = tonumber(ARGV[3])
if redis.call('HDEL', KEYS[3], ARGV[2]) == 1 then delay = 0 end
redis.call('ZADD', KEYS[1], 'XX', now + delay, ARGV[2])
return 1)");

const std::string kRelease = absl::StrCat(kNow, R"(
if redis.call('HGET', KEYS[2], ARGV[2]) ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('ZADD', KEYS[1], 'XX', now, ARGV[2])
return 1)");

const std::string kRegister = absl::StrCat(kNow, R"(
for i = 2, #ARGV, 2 do redis.call('ZADD', KEYS[1], 'NX', now + tonumber(ARGV[i + 1]), ARGV[i]) end
if ARGV[1] == '1' then redis.call('SET', KEYS[4], 1) end
return 1)");

// The holder's entry outlives its lease, so what is being polled is told by both: an entry, and a score within a lease
// time.
const std::string kTouch = absl::StrCat(kNow, R"(
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score then return 0 end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 and tonumber(score) > now and tonumber(score) <= now + tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[3], ARGV[1], 1)
else
  redis.call('ZADD', KEYS[1], now, ARGV[1])
end
return 1)");

const std::string kRemove = R"(
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
return 1)";

std::vector<std::string> Keys(int shard) {
  const std::string base = absl::StrCat("poststelle:{s", shard, "}:");
  return {base + "due", base + "holder", base + "touched", base + "marker"};
}

std::string Ms(absl::Duration duration) {
  return absl::StrCat(absl::ToInt64Milliseconds(std::min(std::max(duration, absl::ZeroDuration()), kMaxDelay)));
}

}  // namespace

int ShardOf(const std::string& id) { return static_cast<unsigned char>(Sha256(id)[0]) % kShards; }

async::Task<absl::StatusOr<ClaimResult>> RedisSchedule::Claim(int shard, int max) {
  std::vector<std::string> arguments{holder_, absl::StrCat(max), Ms(lease_), Ms(kMaxDelay)};
  PS_CO_ASSIGN_OR_RETURN(redis::Reply reply, co_await redis_.Eval(kClaim, Keys(shard), std::move(arguments)));
  if (reply.array.size() != 3 || reply.array[2].array.size() % 3 != 0) {
    co_return absl::InternalError("the claim script answered in an unknown form");
  }
  ClaimResult out;
  out.wiped = reply.array[0].integer == 0;
  if (reply.array[1].integer >= 0) out.next_due_in = absl::Milliseconds(reply.array[1].integer);
  const std::vector<redis::Reply>& rows = reply.array[2].array;
  for (size_t i = 0; i < rows.size(); i += 3) {
    Claimed claim;
    claim.id = rows[i].string;
    claim.unbroken = rows[i + 1].integer == 1;
    claim.late = absl::Milliseconds(rows[i + 2].integer);
    out.claims.push_back(std::move(claim));
  }
  co_return out;
}

async::Task<absl::StatusOr<std::vector<RenewAnswer>>> RedisSchedule::Renew(std::vector<std::string> ids) {
  std::map<int, std::vector<size_t>> by_shard;
  for (size_t i = 0; i < ids.size(); ++i) by_shard[ShardOf(ids[i])].push_back(i);
  std::vector<RenewAnswer> answers(ids.size(), RenewAnswer::kAbsent);
  for (const auto& [shard, indexes] : by_shard) {
    std::vector<std::string> arguments{holder_, Ms(lease_)};
    for (size_t i : indexes) arguments.push_back(ids[i]);
    PS_CO_ASSIGN_OR_RETURN(redis::Reply reply, co_await redis_.Eval(kRenew, Keys(shard), std::move(arguments)));
    for (size_t i = 0; i < indexes.size() && i < reply.array.size(); ++i) {
      answers[indexes[i]] = static_cast<RenewAnswer>(reply.array[i].integer);
    }
  }
  co_return answers;
}

async::Task<absl::Status> RedisSchedule::Done(std::string id, absl::Duration delay) {
  std::vector<std::string> arguments{holder_, id, Ms(delay)};
  co_return (co_await redis_.Eval(kDone, Keys(ShardOf(id)), std::move(arguments))).status();
}

async::Task<absl::Status> RedisSchedule::Release(std::string id) {
  std::vector<std::string> arguments{holder_, id};
  co_return (co_await redis_.Eval(kRelease, Keys(ShardOf(id)), std::move(arguments))).status();
}

async::Task<absl::Status> RedisSchedule::Register(std::vector<std::pair<std::string, absl::Duration>> members,
                                                  bool complete) {
  constexpr size_t kAtOnce = 500;  // members a call: Redis serves nobody else meanwhile
  std::vector<std::vector<std::string>> by_shard(kShards);
  for (const auto& [id, delay] : members) {
    auto& arguments = by_shard[static_cast<size_t>(ShardOf(id))];
    arguments.push_back(id);
    arguments.push_back(Ms(delay));
  }
  for (int shard = 0; shard < kShards; ++shard) {
    auto& arguments = by_shard[static_cast<size_t>(shard)];
    if (arguments.empty() && !complete) continue;
    size_t at = 0;
    do {
      const size_t end = std::min(arguments.size(), at + 2 * kAtOnce);
      std::vector<std::string> part{complete ? "1" : "0"};
      part.insert(part.end(), arguments.begin() + static_cast<std::ptrdiff_t>(at),
                  arguments.begin() + static_cast<std::ptrdiff_t>(end));
      PS_CO_RETURN_IF_ERROR((co_await redis_.Eval(kRegister, Keys(shard), std::move(part))).status());
      at = end;
    } while (at < arguments.size());
  }
  co_return absl::OkStatus();
}

async::Task<absl::Status> RedisSchedule::Touch(std::string id) {
  std::vector<std::string> arguments{id, Ms(lease_)};
  co_return (co_await redis_.Eval(kTouch, Keys(ShardOf(id)), std::move(arguments))).status();
}

async::Task<absl::Status> RedisSchedule::Remove(std::string id) {
  std::vector<std::string> arguments{id};
  co_return (co_await redis_.Eval(kRemove, Keys(ShardOf(id)), std::move(arguments))).status();
}

}  // namespace poststelle::lease
