#include <algorithm>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "libs/base/ids.h"
#include "libs/base/status_macros.h"
#include "libs/lease/lanes.h"
#include "libs/lease/schedule.h"

namespace poststelle::lease {
namespace {

// Keys of a shard: 1 turns (sorted set: mailbox → ms at which it is due × 1024 + slot of the worker that polled it
// last, 0: none), 2 slots (hash: worker → slot), 3 running (hash: mailbox → 1, or t if it was touched meanwhile), 4
// marker (the shard was filled; its value names the filling), 5 workers (sorted set: worker → ms until which it counts
// as alive), 6 held (hash: slot → number of mailboxes that have it), 7 filling (who fills the shard at present). Time
// is Redis' own, so the workers' clocks do not matter. The slot lies in the score because a second key a mailbox
// doubles both Redis' memory and its work; a double keeps 53 bits, enough until the year 2248. A slot is given out
// again when its worker is gone and no mailbox has it. Numbers are written into text by %.0f: Lua's own way rounds
// them.
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

// A mailbox of ours that does not run and is not due is one whose poll ended while this call was on its way: its time
// stands. One that does not run and is due may be polled without a claim, as while Redis was away.
const std::string kRenew = absl::StrCat(kCommon, R"(
local mine = slot_of(ARGV[1])
local out = {}
for i = 3, #ARGV do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[i])
  local ms, slot = split(score or 0)
  if slot == 0 then
    out[#out + 1] = 2
  elseif slot ~= mine then
    out[#out + 1] = 1
  else
    if ms <= now or redis.call('HEXISTS', KEYS[3], ARGV[i]) == 1 then
      redis.call('ZADD', KEYS[1], score_of(now + tonumber(ARGV[2]), mine), ARGV[i])
      redis.call('HSETNX', KEYS[3], ARGV[i], 1)
    end
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

// A holder that lost its place to nobody (Redis was wiped) takes it again, over what others proposed meanwhile. ARGV[2]
// is empty, or names a filling that this is a part of; ARGV[3] is 1 with its last part.
const std::string kRegister = absl::StrCat(kCommon, R"(
local mine = slot_of(ARGV[1])
local fresh, own, taken, gained = {}, {}, {}, 0
for i = 4, #ARGV, 3 do
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
if ARGV[3] == '1' then
  redis.call('SET', KEYS[4], ARGV[2])
  redis.call('DEL', KEYS[7])
elseif ARGV[2] ~= '' then
  redis.call('PEXPIRE', KEYS[7], 2000)
end
return 1)");

// Begins to fill a shard: 0 it is this worker's now, 1 another one is at it, 2 somebody has filled it since it was as
// ARGV[2] says.
constexpr char kBegin[] = R"(
local filled = redis.call('GET', KEYS[4])
if filled and filled ~= ARGV[2] then return 2 end
local filler = redis.call('GET', KEYS[7])
if filler and filler ~= ARGV[1] then return 1 end
redis.call('SET', KEYS[7], ARGV[1], 'PX', 2000)
return 0)";

const std::string kLastFilling = "return redis.call('GET', KEYS[4]) or ''";

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
  return {base + "turns",   base + "slots", base + "running", base + "marker",
          base + "workers", base + "held",  base + "filling"};
}

std::string Ms(absl::Duration duration) {
  return absl::StrCat(absl::ToInt64Milliseconds(std::min(std::max(duration, absl::ZeroDuration()), kMaxDelay)));
}

// Members a call: Redis serves nobody else meanwhile.
constexpr size_t kAtOnce = 500;
// Shards that are filled at once. Enough to keep Redis busy while this side prepares the next call, and few enough that
// claims come through between.
constexpr int kFillLanes = 2;
constexpr absl::Duration kLookAgain = absl::Milliseconds(100);

std::vector<int> AllShards(int first = 0) {
  std::vector<int> out;
  for (int i = 0; i < kShards; ++i) out.push_back((first + i) % kShards);
  return out;
}

// Indexes of `items` by shard.
template <typename Item, typename IdOf>
std::vector<std::vector<size_t>> ByShard(const std::vector<Item>& items, IdOf id_of) {
  std::vector<std::vector<size_t>> out(kShards);
  for (size_t i = 0; i < items.size(); ++i) out[static_cast<size_t>(ShardOf(id_of(items[i])))].push_back(i);
  return out;
}

std::vector<int> Used(const std::vector<std::vector<size_t>>& by_shard) {
  std::vector<int> out;
  for (int shard = 0; shard < kShards; ++shard) {
    if (!by_shard[static_cast<size_t>(shard)].empty()) out.push_back(shard);
  }
  return out;
}

// Runs `script` in the shards of `items`, with `head` and then what `append` says of each item, in parts of kAtOnce.
// What went well is taken out of `items`.
template <typename Item, typename Append>
async::Task<absl::Status> EvalByShard(asio::any_io_executor executor, redis::Commands& redis, const std::string& script,
                                      std::vector<std::string> head, std::vector<Item>& items, Append append,
                                      int lanes) {
  const std::vector<std::vector<size_t>> by_shard = ByShard(items, [](const Item& item) { return item.id; });
  std::vector<char> told(items.size());  // no vector<bool>: lanes write side by side
  std::function<async::Task<absl::Status>(int)> one = [&](int shard) -> async::Task<absl::Status> {
    const std::vector<size_t>& own = by_shard[static_cast<size_t>(shard)];
    for (size_t at = 0; at < own.size(); at += kAtOnce) {
      const size_t end = std::min(own.size(), at + kAtOnce);
      std::vector<std::string> arguments = head;
      for (size_t i = at; i < end; ++i) append(items[own[i]], arguments);
      PS_CO_RETURN_IF_ERROR((co_await redis.Eval(script, Keys(shard), std::move(arguments))).status());
      for (size_t i = at; i < end; ++i) told[own[i]] = 1;
    }
    co_return absl::OkStatus();
  };
  absl::Status status = co_await InLanes(std::move(executor), Used(by_shard), lanes, one);
  size_t at = 0;
  std::erase_if(items, [&](const Item&) { return told[at++] != 0; });
  co_return status;
}

void AppendMember(const Member& m, std::vector<std::string>& out) {
  out.insert(out.end(), {m.id, Ms(m.delay), m.mine ? "1" : "0"});
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
  const std::vector<std::vector<size_t>> by_shard = ByShard(ids, [](const std::string& id) { return id; });
  std::vector<RenewAnswer> answers(ids.size(), RenewAnswer::kAbsent);
  std::function<async::Task<absl::Status>(int)> one = [&, this](int shard) -> async::Task<absl::Status> {
    const std::vector<size_t>& own = by_shard[static_cast<size_t>(shard)];
    // Who is not answered has not lost anything.
    for (size_t i : own) answers[i] = RenewAnswer::kRenewed;
    for (size_t at = 0; at < own.size(); at += kAtOnce) {
      const size_t end = std::min(own.size(), at + kAtOnce);
      std::vector<std::string> arguments{holder_, Ms(lease_)};
      for (size_t i = at; i < end; ++i) arguments.push_back(ids[own[i]]);
      PS_CO_ASSIGN_OR_RETURN(redis::Reply reply, co_await redis_.Eval(kRenew, Keys(shard), std::move(arguments)));
      for (size_t i = 0; at + i < end && i < reply.array.size(); ++i) {
        answers[own[at + i]] = static_cast<RenewAnswer>(reply.array[i].integer);
      }
    }
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await InLanes(executor_, Used(by_shard), kShards, one));
  co_return answers;
}

async::Task<absl::Status> RedisSchedule::Done(std::vector<Finished>& finished) {
  std::vector<std::string> head{holder_};
  const absl::Time now = absl::Now();
  auto append = [now](const Finished& f, std::vector<std::string>& out) {
    out.insert(out.end(), {f.id, Ms(f.due - now), f.keep ? "1" : "0"});
  };
  co_return co_await EvalByShard(executor_, redis_, kDone, std::move(head), finished, append, kShards);
}

async::Task<absl::Status> RedisSchedule::Register(std::vector<Member> members, bool complete) {
  if (complete) co_return co_await Fill(std::move(members));
  std::vector<std::string> head{holder_, "", "0"};
  co_return co_await EvalByShard(executor_, redis_, kRegister, std::move(head), members, AppendMember, kFillLanes);
}

// Own places first, before anybody polls what others proposed. Then the shards one after the other, each worker
// beginning elsewhere: what one is at or has filled meanwhile costs the others nothing, so that together they need
// about as long as one alone would, divided by their number.
async::Task<absl::Status> RedisSchedule::Fill(std::vector<Member> members) {
  std::vector<Member> mine;
  for (const Member& member : members) {
    if (member.mine) mine.push_back(member);
  }
  std::vector<std::string> head{holder_, "", "0"};
  absl::Status status =
      co_await EvalByShard(executor_, redis_, kRegister, std::move(head), mine, AppendMember, kFillLanes);
  if (absl::IsCancelled(status)) co_return status;
  std::erase_if(members, [](const Member& member) { return member.mine; });
  const std::vector<std::vector<size_t>> by_shard = ByShard(members, [](const Member& member) { return member.id; });

  const std::string filling = RandomId();
  std::vector<std::string> before(kShards);
  std::function<async::Task<absl::Status>(int)> look = [&, this](int shard) -> async::Task<absl::Status> {
    PS_CO_ASSIGN_OR_RETURN(redis::Reply reply, co_await redis_.Eval(kLastFilling, Keys(shard), {}));
    before[static_cast<size_t>(shard)] = std::move(reply.string);
    co_return absl::OkStatus();
  };
  status.Update(co_await InLanes(executor_, AllShards(), kShards, look));

  std::mutex mutex;
  std::vector<int> others;  // guarded by mutex: shards that another worker is filling
  std::function<async::Task<absl::Status>(int)> fill = [&, this](int shard) -> async::Task<absl::Status> {
    std::vector<std::string> begin{holder_, before[static_cast<size_t>(shard)]};
    PS_CO_ASSIGN_OR_RETURN(redis::Reply reply, co_await redis_.Eval(kBegin, Keys(shard), std::move(begin)));
    if (reply.integer == 1) {
      std::lock_guard lock(mutex);
      others.push_back(shard);
    }
    if (reply.integer != 0) co_return absl::OkStatus();
    const std::vector<size_t>& own = by_shard[static_cast<size_t>(shard)];
    size_t at = 0;
    do {
      const size_t end = std::min(own.size(), at + kAtOnce);
      std::vector<std::string> arguments{holder_, filling, end == own.size() ? "1" : "0"};
      for (; at < end; ++at) AppendMember(members[own[at]], arguments);
      PS_CO_RETURN_IF_ERROR((co_await redis_.Eval(kRegister, Keys(shard), std::move(arguments))).status());
    } while (at < own.size());
    co_return absl::OkStatus();
  };
  std::vector<int> open = AllShards(ShardOf(holder_));
  while (!open.empty()) {
    status.Update(co_await InLanes(executor_, open, kFillLanes, fill));
    const bool stuck = open.size() == others.size();
    open = std::exchange(others, {});
    if (stuck) status.Update(co_await async::Sleep(kLookAgain));
    if (absl::IsCancelled(status)) co_return status;
  }
  co_return status;
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
  std::function<async::Task<absl::Status>(int)> one = [this](int shard) -> async::Task<absl::Status> {
    std::vector<std::string> arguments{holder_};
    co_return (co_await redis_.Eval(kLeave, Keys(shard), std::move(arguments))).status();
  };
  co_return co_await InLanes(executor_, AllShards(), kShards, one);
}

}  // namespace poststelle::lease
