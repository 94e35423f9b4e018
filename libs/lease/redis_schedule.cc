#include <map>

#include "absl/strings/str_cat.h"
#include "libs/base/ids.h"
#include "libs/base/status_macros.h"
#include "libs/lease/schedule.h"

namespace poststelle::lease {
namespace {

// Keys of a shard: 1 turns (sorted set: mailbox → ms at which it is due × 1024 + slot of the worker that polled it
// last, 0: none), 2 slots (hash: worker → slot), 3 running (hash: mailbox → 1, or t if it was touched meanwhile), 4
// marker (the shard was filled), 5 workers (sorted set: worker → ms until which it counts as alive), 6 held (hash: slot
// → number of mailboxes that have it). Time is Redis' own, so the workers' clocks do not matter. The slot lies in the
// score because a second key a mailbox doubles both Redis' memory and its work; a double keeps 53 bits, enough until
// the year 2248. A slot is given out again when its worker is gone and no mailbox has it. Numbers are written into text
// by %.0f: Lua's own way rounds them.
constexpr char kCommon[] = R"(
local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function score_of(ms, slot) return ms * 1024 + slot end
local function split(score)
  local number = tonumber(score)
  local slot = number % 1024
  return (number - slot) / 1024, slot
end
local function count(slot, delta)
  if slot > 0 and delta ~= 0 and redis.call('HINCRBY', KEYS[6], slot, delta) <= 0 then
    redis.call('HDEL', KEYS[6], slot)
  end
end
local function slot_of(worker)
  local own = redis.call('HGET', KEYS[2], worker)
  if own then return tonumber(own) end
  local all, used = redis.call('HGETALL', KEYS[2]), {}
  for i = 1, #all, 2 do
    if redis.call('ZSCORE', KEYS[5], all[i]) or redis.call('HEXISTS', KEYS[6], all[i + 1]) == 1 then
      used[tonumber(all[i + 1])] = true
    else
      redis.call('HDEL', KEYS[2], all[i])
    end
  end
  for slot = 1, 1023 do
    if not used[slot] then
      redis.call('HSET', KEYS[2], worker, slot)
      return slot
    end
  end
  error('more than 1023 workers hold mailboxes')
end
)";

// A call looks at this many members that are due beyond those it may take: the ones that are others' turn.
constexpr int kLookBeyond = 256;

const std::string kClaim = absl::StrCat(kCommon, R"(
local me, max, lease, far = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local grace, hungry, beyond = tonumber(ARGV[5]), ARGV[6] == '1', tonumber(ARGV[7])
redis.call('ZADD', KEYS[5], now + lease, me)
redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', now)
local mine = slot_of(me)
local too_far = string.format('(%.0f', score_of(now + far, 1023))
local strays = redis.call('ZRANGEBYSCORE', KEYS[1], too_far, '+inf', 'WITHSCORES', 'LIMIT', 0, 16)
for i = 1, #strays, 2 do
  local _, slot = split(strays[i + 1])
  redis.call('ZADD', KEYS[1], score_of(now, slot), strays[i])
end
local alive
local function is_alive(slot)
  if not alive then
    alive = {}
    local all = redis.call('HGETALL', KEYS[2])
    for i = 1, #all, 2 do alive[tonumber(all[i + 1])] = redis.call('ZSCORE', KEYS[5], all[i]) ~= false end
  end
  return alive[slot]
end
local until_now = score_of(now, 1023)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', until_now, 'WITHSCORES', 'LIMIT', 0, max + beyond)
local out, taken, wait = {}, 0, -1
local turns, running, gained, lost = {}, {}, 0, {}
local function sooner(ms) if wait < 0 or ms < wait then wait = ms end end
for i = 1, #due, 2 do
  local id = due[i]
  local ms, before = split(due[i + 1])
  local late = now - ms
  local patience = 0
  if before ~= mine then
    if before > 0 and is_alive(before) then patience = grace end
    if not hungry then patience = patience + grace end
  end
  if late < patience then
    sooner(patience - late)
  elseif taken == max then
    sooner(0)
    break
  else
    taken = taken + 1
    turns[#turns + 1] = score_of(now + lease, mine)
    turns[#turns + 1] = id
    running[#running + 1] = id
    running[#running + 1] = 1
    if before ~= mine then
      gained = gained + 1
      lost[before] = (lost[before] or 0) + 1
    end
    out[#out + 1] = id
    out[#out + 1] = (before == mine) and 1 or 0
    out[#out + 1] = late
  end
end
if taken > 0 then
  redis.call('ZADD', KEYS[1], unpack(turns))
  redis.call('HSET', KEYS[3], unpack(running))
  count(mine, gained)
  for slot, number in pairs(lost) do count(slot, -number) end
end
local after = string.format('(%.0f', until_now)
local first = redis.call('ZRANGEBYSCORE', KEYS[1], after, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
if #first > 0 then sooner(math.max(0, split(first[2]) - now)) end
return {redis.call('EXISTS', KEYS[4]), wait, redis.call('ZCARD', KEYS[1]),
        tonumber(redis.call('HGET', KEYS[6], mine) or 0), redis.call('ZCARD', KEYS[5]), out})");

const std::string kRenew = absl::StrCat(kCommon, R"(
local mine = slot_of(ARGV[1])
local out = {}
for i = 3, #ARGV do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[i])
  local _, slot = split(score or 0)
  if slot == 0 then
    out[#out + 1] = 2
  elseif slot ~= mine then
    out[#out + 1] = 1
  else
    redis.call('ZADD', KEYS[1], score_of(now + tonumber(ARGV[2]), mine), ARGV[i])
    out[#out + 1] = 0
  end
end
return out)");

const std::string kDone = absl::StrCat(kCommon, R"(
local mine = slot_of(ARGV[1])
local ids = {}
for i = 2, #ARGV, 3 do ids[#ids + 1] = ARGV[i] end
local scores = redis.call('ZMSCORE', KEYS[1], unpack(ids))
local running = redis.call('HMGET', KEYS[3], unpack(ids))
local turns, ended, given_up, gone = {}, {}, 0, {}
for i, id in ipairs(ids) do
  local _, slot = split(scores[i] or 0)
  if slot == mine and not gone[id] then
    local delay, keep = tonumber(ARGV[3 * i]), ARGV[3 * i + 1] ~= '0'
    if running[i] == 't' then delay = 0 end
    if not keep then given_up, gone[id] = given_up + 1, true end
    turns[#turns + 1] = score_of(now + delay, keep and mine or 0)
    turns[#turns + 1] = id
    ended[#ended + 1] = id
  end
end
if #ended > 0 then
  redis.call('ZADD', KEYS[1], unpack(turns))
  redis.call('HDEL', KEYS[3], unpack(ended))
  count(mine, -given_up)
end
return 1)");

// A holder that lost its place to nobody (Redis was wiped) takes it again, over what others proposed meanwhile.
const std::string kRegister = absl::StrCat(kCommon, R"(
local mine = slot_of(ARGV[1])
local fresh, own, taken, gained = {}, {}, {}, 0
for i = 3, #ARGV, 3 do
  local ms = now + tonumber(ARGV[i + 1])
  if ARGV[i + 2] == '1' then
    own[#own + 1] = ARGV[i]
    taken[#taken + 1] = score_of(ms, mine)
  else
    fresh[#fresh + 1] = score_of(ms, 0)
    fresh[#fresh + 1] = ARGV[i]
  end
end
if #fresh > 0 then redis.call('ZADD', KEYS[1], 'NX', unpack(fresh)) end
local scores = #own > 0 and redis.call('ZMSCORE', KEYS[1], unpack(own)) or {}
local turns, seen = {}, {}
for i, id in ipairs(own) do
  local _, slot = split(scores[i] or 0)
  if slot == 0 and not seen[id] then
    seen[id] = true
    gained = gained + 1
    turns[#turns + 1] = taken[i]
    turns[#turns + 1] = id
  end
end
if gained > 0 then
  redis.call('ZADD', KEYS[1], unpack(turns))
  count(mine, gained)
end
if ARGV[2] == '1' then redis.call('SET', KEYS[4], 1) end
return 1)");

const std::string kTouch = absl::StrCat(kCommon, R"(
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score then return 0 end
local ms, slot = split(score)
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 and ms > now then
  redis.call('HSET', KEYS[3], ARGV[1], 't')
else
  redis.call('ZADD', KEYS[1], score_of(now, slot), ARGV[1])
end
return 1)");

const std::string kRemove = absl::StrCat(kCommon, R"(
local _, slot = split(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0)
count(slot, -1)
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
return 1)");

const std::string kLeave = "return redis.call('ZREM', KEYS[5], ARGV[1])";

std::vector<std::string> Keys(int shard) {
  const std::string base = absl::StrCat("poststelle:{s", shard, "}:");
  return {base + "turns", base + "slots", base + "running", base + "marker", base + "workers", base + "held"};
}

std::string Ms(absl::Duration duration) {
  return absl::StrCat(absl::ToInt64Milliseconds(std::min(std::max(duration, absl::ZeroDuration()), kMaxDelay)));
}

// Members a call: Redis serves nobody else meanwhile.
constexpr size_t kAtOnce = 1000;

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
