#include <map>

#include "absl/strings/str_cat.h"
#include "libs/base/ids.h"
#include "libs/base/status_macros.h"
#include "libs/lease/schedule.h"

namespace poststelle::lease {
namespace {

// Keys of a shard: 1 due (sorted set: mailbox → ms), 2 holder (hash: mailbox → worker that polled it last), 3 running
// (hash: mailbox → 1, or t if it was touched meanwhile), 4 marker (the shard was filled), 5 workers (sorted set: worker
// → ms until which it counts as alive), 6 held (hash: worker → number of mailboxes whose holder it is).
// Time is Redis' own, so the workers' clocks do not matter.
constexpr char kCommon[] = R"(
local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function set_holder(id, before, after)
  if before == after then return end
  if before and redis.call('HINCRBY', KEYS[6], before, -1) <= 0 then redis.call('HDEL', KEYS[6], before) end
  if after then
    redis.call('HSET', KEYS[2], id, after)
    redis.call('HINCRBY', KEYS[6], after, 1)
  else
    redis.call('HDEL', KEYS[2], id)
  end
end
)";

// A call looks at this many members that are due beyond those it may take: the ones that are others' turn.
constexpr int kLookBeyond = 256;

const std::string kClaim = absl::StrCat(kCommon, R"(
local me, max, lease, far = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local grace, hungry, beyond = tonumber(ARGV[5]), ARGV[6] == '1', tonumber(ARGV[7])
redis.call('ZADD', KEYS[5], now + lease, me)
redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', now)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. (now + far), '+inf', 'LIMIT', 0, 16)) do
  redis.call('ZADD', KEYS[1], now, id)
end
local alive = {}
local function is_alive(worker)
  if alive[worker] == nil then alive[worker] = redis.call('ZSCORE', KEYS[5], worker) ~= false end
  return alive[worker]
end
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, max + beyond)
local ids = {}
for i = 1, #due, 2 do ids[#ids + 1] = due[i] end
local holders = #ids > 0 and redis.call('HMGET', KEYS[2], unpack(ids)) or {}
local out, taken, wait = {}, 0, -1
local function sooner(ms) if wait < 0 or ms < wait then wait = ms end end
for i, id in ipairs(ids) do
  local before, late = holders[i], now - tonumber(due[2 * i])
  local patience = 0
  if before ~= me then
    if before and is_alive(before) then patience = grace end
    if not hungry then patience = patience + grace end
  end
  if late < patience then
    sooner(patience - late)
  elseif taken == max then
    sooner(0)
  else
    taken = taken + 1
    redis.call('ZADD', KEYS[1], now + lease, id)
    redis.call('HSET', KEYS[3], id, 1)
    set_holder(id, before, me)
    out[#out + 1] = id
    out[#out + 1] = (before == me) and 1 or 0
    out[#out + 1] = late
  end
end
local first = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
if #first > 0 then sooner(math.max(0, tonumber(first[2]) - now)) end
return {redis.call('EXISTS', KEYS[4]), wait, redis.call('ZCARD', KEYS[1]),
        tonumber(redis.call('HGET', KEYS[6], me) or 0), redis.call('ZCARD', KEYS[5]), out})");

const std::string kRenew = absl::StrCat(kCommon, R"(
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

const std::string kDone = absl::StrCat(kCommon, R"(
for i = 2, #ARGV, 3 do
  local id, delay = ARGV[i], tonumber(ARGV[i + 1])
  if redis.call('HGET', KEYS[2], id) == ARGV[1] then
    if redis.call('HGET', KEYS[3], id) == 't' then delay = 0 end
    redis.call('HDEL', KEYS[3], id)
    redis.call('ZADD', KEYS[1], 'XX', now + delay, id)
    if ARGV[i + 2] == '0' then set_holder(id, ARGV[1], false) end
  end
end
return 1)");

// A holder that lost its place to nobody (Redis was wiped) takes it again, over what others proposed meanwhile.
const std::string kRegister = absl::StrCat(kCommon, R"(
for i = 3, #ARGV, 3 do
  local id, delay = ARGV[i], tonumber(ARGV[i + 1])
  if ARGV[i + 2] == '1' then
    local holder = redis.call('HGET', KEYS[2], id)
    if not holder then
      redis.call('ZADD', KEYS[1], now + delay, id)
      set_holder(id, holder, ARGV[1])
    end
  else
    redis.call('ZADD', KEYS[1], 'NX', now + delay, id)
  end
end
if ARGV[2] == '1' then redis.call('SET', KEYS[4], 1) end
return 1)");

const std::string kTouch = absl::StrCat(kCommon, R"(
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score then return 0 end
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 and tonumber(score) > now then
  redis.call('HSET', KEYS[3], ARGV[1], 't')
else
  redis.call('ZADD', KEYS[1], now, ARGV[1])
end
return 1)");

const std::string kRemove = absl::StrCat(kCommon, R"(
redis.call('ZREM', KEYS[1], ARGV[1])
set_holder(ARGV[1], redis.call('HGET', KEYS[2], ARGV[1]), false)
redis.call('HDEL', KEYS[3], ARGV[1])
return 1)");

const std::string kLeave = "return redis.call('ZREM', KEYS[5], ARGV[1])";

std::vector<std::string> Keys(int shard) {
  const std::string base = absl::StrCat("poststelle:{s", shard, "}:");
  return {base + "due", base + "holder", base + "running", base + "marker", base + "workers", base + "held"};
}

std::string Ms(absl::Duration duration) {
  return absl::StrCat(absl::ToInt64Milliseconds(std::min(std::max(duration, absl::ZeroDuration()), kMaxDelay)));
}

// Members a call: Redis serves nobody else meanwhile.
constexpr size_t kAtOnce = 500;

// Runs `script` for each shard of `items`, with `head` and then what `append` says of each item; parts of kAtOnce.
template <typename Item, typename Append>
async::Task<absl::Status> EvalByShard(redis::Commands& redis, const std::string& script, std::vector<std::string> head,
                                      std::vector<Item> items, Append append, bool every_shard) {
  std::vector<std::vector<const Item*>> by_shard(kShards);
  for (const Item& item : items) by_shard[static_cast<size_t>(ShardOf(item.id))].push_back(&item);
  for (int shard = 0; shard < kShards; ++shard) {
    const std::vector<const Item*>& own = by_shard[static_cast<size_t>(shard)];
    if (own.empty() && !every_shard) continue;
    size_t at = 0;
    do {
      const size_t end = std::min(own.size(), at + kAtOnce);
      std::vector<std::string> arguments = head;
      for (; at < end; ++at) append(*own[at], arguments);
      PS_CO_RETURN_IF_ERROR((co_await redis.Eval(script, Keys(shard), std::move(arguments))).status());
    } while (at < own.size());
  }
  co_return absl::OkStatus();
}

}  // namespace

int ShardOf(const std::string& id) { return static_cast<unsigned char>(Sha256(id)[0]) % kShards; }

async::Task<absl::StatusOr<ClaimResult>> RedisSchedule::Claim(int shard, int max, bool hungry) {
  std::vector<std::string> arguments{
      holder_, absl::StrCat(max), Ms(lease_), Ms(kMaxDelay), Ms(kGrace), hungry ? "1" : "0", absl::StrCat(kLookBeyond)};
  PS_CO_ASSIGN_OR_RETURN(redis::Reply reply, co_await redis_.Eval(kClaim, Keys(shard), std::move(arguments)));
  if (reply.array.size() != 6 || reply.array[5].array.size() % 3 != 0) {
    co_return absl::InternalError("the claim script answered in an unknown form");
  }
  ClaimResult out;
  out.wiped = reply.array[0].integer == 0;
  if (reply.array[1].integer >= 0) out.next_due_in = absl::Milliseconds(reply.array[1].integer);
  out.members = reply.array[2].integer;
  out.held = reply.array[3].integer;
  out.workers = static_cast<int>(reply.array[4].integer);
  const std::vector<redis::Reply>& rows = reply.array[5].array;
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

async::Task<absl::Status> RedisSchedule::Done(std::vector<Finished> finished) {
  std::vector<std::string> head{holder_};
  auto append = [](const Finished& f, std::vector<std::string>& out) {
    out.insert(out.end(), {f.id, Ms(f.delay), f.keep ? "1" : "0"});
  };
  co_return co_await EvalByShard(redis_, kDone, std::move(head), std::move(finished), append, false);
}

async::Task<absl::Status> RedisSchedule::Register(std::vector<Member> members, bool complete) {
  std::vector<std::string> head{holder_, complete ? "1" : "0"};
  auto append = [](const Member& m, std::vector<std::string>& out) {
    out.insert(out.end(), {m.id, Ms(m.delay), m.mine ? "1" : "0"});
  };
  co_return co_await EvalByShard(redis_, kRegister, std::move(head), std::move(members), append, complete);
}

async::Task<absl::Status> RedisSchedule::Touch(std::string id) {
  std::vector<std::string> arguments{id};
  co_return (co_await redis_.Eval(kTouch, Keys(ShardOf(id)), std::move(arguments))).status();
}

async::Task<absl::Status> RedisSchedule::Remove(std::string id) {
  std::vector<std::string> arguments{id};
  co_return (co_await redis_.Eval(kRemove, Keys(ShardOf(id)), std::move(arguments))).status();
}

async::Task<absl::Status> RedisSchedule::Leave() {
  for (int shard = 0; shard < kShards; ++shard) {
    std::vector<std::string> arguments{holder_};
    PS_CO_RETURN_IF_ERROR((co_await redis_.Eval(kLeave, Keys(shard), std::move(arguments))).status());
  }
  co_return absl::OkStatus();
}

}  // namespace poststelle::lease
