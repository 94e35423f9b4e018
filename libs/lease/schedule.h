// The schedule of leases in Redis (DESIGN §4). Losing it costs a late poll, never a mail.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "libs/async/runtime.h"
#include "libs/redis/commands.h"

namespace poststelle::lease {

// Shards by hash tag, so that each one's keys lie on one node of a Redis Cluster.
inline constexpr int kShards = 16;
// A score further away than this is a mistake of somebody's clock and is pulled in.
inline constexpr absl::Duration kMaxDelay = absl::Hours(24 * 8);  // above the longest interval

struct Claimed {
  std::string id;
  bool unbroken = false;  // the last holder was this very process start
  absl::Duration late;    // behind its due time
};
struct ClaimResult {
  std::vector<Claimed> claims;
  std::optional<absl::Duration> next_due_in;  // until the shard's next one; empty if there is none
  bool wiped = false;                         // nobody has filled this shard since Redis lost its memory
};
enum class RenewAnswer { kRenewed, kLost, kAbsent };

// Thread-safe. Errors are those of redis::Commands; every call may be repeated.
class Schedule {
 public:
  virtual ~Schedule() = default;
  // Takes up to `max` due members of `shard` for the lease time.
  virtual async::Task<absl::StatusOr<ClaimResult>> Claim(int shard, int max) = 0;
  // Extends the leases; one answer for each id.
  virtual async::Task<absl::StatusOr<std::vector<RenewAnswer>>> Renew(std::vector<std::string> ids) = 0;
  // Ends a lease of ours: due again after `delay`, at once if it was touched meanwhile. Nothing if somebody else holds
  // it.
  virtual async::Task<absl::Status> Done(std::string id, absl::Duration delay) = 0;
  // Hands a lease of ours over at once.
  virtual async::Task<absl::Status> Release(std::string id) = 0;
  // Adds members that are not there yet, due after their delay. `complete`: these are all there are, so the shards
  // count as filled from now on (see ClaimResult::wiped).
  virtual async::Task<absl::Status> Register(std::vector<std::pair<std::string, absl::Duration>> members,
                                             bool complete) = 0;
  // Due now, or as soon as its present holder is done.
  virtual async::Task<absl::Status> Touch(std::string id) = 0;
  virtual async::Task<absl::Status> Remove(std::string id) = 0;
};

class RedisSchedule : public Schedule {
 public:
  // `holder` names this process start.
  RedisSchedule(redis::Commands& redis, std::string holder, absl::Duration lease)
      : redis_(redis), holder_(std::move(holder)), lease_(lease) {}
  async::Task<absl::StatusOr<ClaimResult>> Claim(int shard, int max) override;
  async::Task<absl::StatusOr<std::vector<RenewAnswer>>> Renew(std::vector<std::string> ids) override;
  async::Task<absl::Status> Done(std::string id, absl::Duration delay) override;
  async::Task<absl::Status> Release(std::string id) override;
  async::Task<absl::Status> Register(std::vector<std::pair<std::string, absl::Duration>> members,
                                     bool complete) override;
  async::Task<absl::Status> Touch(std::string id) override;
  async::Task<absl::Status> Remove(std::string id) override;

 private:
  redis::Commands& redis_;
  const std::string holder_;
  const absl::Duration lease_;
};

int ShardOf(const std::string& id);

}  // namespace poststelle::lease
