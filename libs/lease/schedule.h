// The schedule of leases in Redis (DESIGN §4). Losing it costs a late poll, never a mail.
#pragma once

#include <memory>
#include <optional>
#include <string>
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
  std::optional<absl::Duration> next_due_in;  // until this worker may find something here; empty: nothing is scheduled
  bool wiped = false;                         // nobody has filled this shard since Redis lost its memory
  int64_t members = 0;                        // mailboxes of this shard
  int64_t held = 0;                           // of these, how many this worker held last
  int workers = 0;                            // that claimed here within a lease time, this one included
};
enum class RenewAnswer { kRenewed, kLost, kAbsent };

// A lease that ends: due again at `due`, at once if it was touched meanwhile. A time and not a delay, because it may be
// told late; it is this process' clock, and what is told is how far away it is then.
struct Finished {
  std::string id;
  absl::Time due;
  bool keep = true;  // stay its preferred worker; false hands it to whoever holds too few
};
// A mailbox that is to be in the schedule.
struct Member {
  std::string id;
  absl::Duration delay;  // until it is due, if it is new
  bool mine = false;     // this worker polled it last: it takes its place again, whatever others proposed meanwhile
};

// Thread-safe. Errors are those of redis::Commands; every call may be repeated. A call for several shards asks all of
// them, and one that fails does not keep it from the others; it returns the first error.
//
// Whose turn it is. The worker that polled a mailbox last claims it as soon as it is due; a mailbox whose last worker
// is gone, or that was given up, goes to any worker that holds less than its share. Others wait kGrace, those who hold
// their share already 2 × kGrace: so whoever is late, somebody comes.
class Schedule {
 public:
  static constexpr absl::Duration kGrace = absl::Milliseconds(200);

  virtual ~Schedule() = default;
  // Takes up to `max` (at most 1,000) members of `shard` that are due and this worker's turn, for the lease time.
  // `hungry`: it holds less than its share. Counts as a sign of life of this worker.
  virtual async::Task<absl::StatusOr<ClaimResult>> Claim(int shard, int max, bool hungry) = 0;
  // Extends the leases; one answer for each id. Never brings a mailbox forward whose poll has ended meanwhile.
  virtual async::Task<absl::StatusOr<std::vector<RenewAnswer>>> Renew(std::vector<std::string> ids) = 0;
  // Ends leases of ours. Nothing where somebody else holds it. What was told is taken out of `finished`: after an error
  // the rest is there.
  virtual async::Task<absl::Status> Done(std::vector<Finished>& finished) = 0;
  // Adds members that are not there yet. `complete`: these are all there are, so the shards count as filled from now on
  // (see ClaimResult::wiped); what another worker fills meanwhile is left to it, but for members that are mine. Ends
  // with kCancelled soon after cancellation.
  virtual async::Task<absl::Status> Register(std::vector<Member> members, bool complete) = 0;
  // Due now, or as soon as its present poll is done.
  virtual async::Task<absl::Status> Touch(std::string id) = 0;
  virtual async::Task<absl::Status> Remove(std::string id) = 0;
  // This worker takes no more: what it held is anybody's at once.
  virtual async::Task<absl::Status> Leave() = 0;
};

class RedisSchedule : public Schedule {
 public:
  // `holder` names this process start. Up to 1,023 may hold mailboxes of a shard at a time.
  RedisSchedule(asio::any_io_executor executor, redis::Commands& redis, std::string holder, absl::Duration lease)
      : executor_(std::move(executor)), redis_(redis), holder_(std::move(holder)), lease_(lease) {}
  async::Task<absl::StatusOr<ClaimResult>> Claim(int shard, int max, bool hungry) override;
  async::Task<absl::StatusOr<std::vector<RenewAnswer>>> Renew(std::vector<std::string> ids) override;
  async::Task<absl::Status> Done(std::vector<Finished>& finished) override;
  async::Task<absl::Status> Register(std::vector<Member> members, bool complete) override;
  async::Task<absl::Status> Touch(std::string id) override;
  async::Task<absl::Status> Remove(std::string id) override;
  async::Task<absl::Status> Leave() override;

 private:
  async::Task<absl::Status> Fill(std::vector<Member> members);

  const asio::any_io_executor executor_;
  redis::Commands& redis_;
  const std::string holder_;
  const absl::Duration lease_;
};

int ShardOf(const std::string& id);

}  // namespace poststelle::lease
