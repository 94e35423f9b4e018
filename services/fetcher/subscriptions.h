// Subscriptions in SQL: their members, who of them holds which partition, the cursors. No gRPC, no threads.
//
// A partition of a subscription has one holder at a time, under a generation that counts up whenever it is given out.
// Everything that moves a cursor names holder and generation and is checked against the row in the same statement:
// that alone keeps a member that was taken for dead from moving anything. Times only decide when a silent member's
// partitions are given to others.
//
//   (nobody) → held       generation + 1                 Settle: join, leave, expiry, release
//   held     → wanted     the same generation            Settle: another member is due this partition
//   wanted   → held       generation + 1, new holder     Release by the old holder, or its expiry
//   held     → held       generation + 1, same holder    Refuse: what is on its way is void, the event comes again
//
// Clock: expiry times (milliseconds since 1970) are written and compared with the database's clock, so those of the
// fetchers' hosts may differ.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "libs/async/runtime.h"
#include "libs/sql/database.h"
#include "services/fetcher/ledger.h"

namespace poststelle::fetcher {

// Offset by partition.
using Offsets = std::map<int, int64_t>;

// Thread-safe; state lives in SQL.
class Subscriptions {
 public:
  struct Options {
    // How long a silent member's partitions are kept for it.
    absl::Duration lease = absl::Seconds(10);
    std::function<int64_t()> now_ms;  // for tests; empty: the database's clock
  };
  // `process` names this process start; its members are renewed together.
  Subscriptions(sql::Database& database, const FeedInfo& info, std::string process, Options options)
      : database_(database), info_(info), process_(std::move(process)), options_(std::move(options)) {}
  const FeedInfo& info() const { return info_; }
  absl::Duration lease() const { return options_.lease; }

  // Makes `member` a member, and the subscription at its first use (`from_now`: behind everything there is).
  // Repeatable.
  async::Task<absl::Status> Join(std::string name, std::string member, bool from_now);
  // Gives back what it holds; the others get it at once. Repeatable.
  async::Task<absl::Status> Leave(std::string name, std::string member);
  // Gives back these partitions (with their generations), after which their acknowledgements are refused.
  async::Task<absl::Status> Release(std::string name, std::string member,
                                    std::vector<std::pair<int, int64_t>> partitions);
  // Renews all members of this process. The number of them that are still known.
  async::Task<absl::StatusOr<int64_t>> Renew();
  // Removes expired members and shares out the partitions anew.
  async::Task<absl::Status> Settle(std::string name);

  // What a member holds.
  struct Held {
    int64_t generation = 0;
    int64_t acknowledged = 0;
    bool wanted = false;  // another member is due it: send nothing more, then Release
  };
  struct Holding {
    std::map<int, Held> held;
    int expected = 0;  // partitions that others are about to release to it
  };
  // By member.
  async::Task<absl::StatusOr<std::map<std::string, Holding>>> Holdings(std::string name);

  struct Refusal {
    std::string reason;
    int max_refusals = 5;
  };
  // A step of a cursor.
  struct Step {
    std::string name;
    std::string member;
    int partition = 0;
    int64_t generation = 0;
    int64_t offset = 0;
    // Absent: everything up to `offset` is done with. Otherwise everything before it, and `offset` itself is refused;
    // with the `max_refusals`th time it is set aside.
    std::optional<Refusal> refusal;
    // Out: kAborted if the generation is not the member's any more, kInvalidArgument for an offset that was never given
    // out.
    absl::Status result;
    int64_t refusals = 0;  // out: how often the event was refused by now
  };
  // Takes all of them in one transaction; durable when it returns OK, each step's result then says whether it counts.
  async::Task<absl::Status> Apply(std::vector<Step>& steps);

  // What the processes look at all the time, in one statement.
  struct Pulse {
    Offsets heads;                            // last offset of each partition
    std::map<std::string, int64_t> versions;  // changes when the assignment does
    std::set<std::string> overdue;            // have expired members: Settle
  };
  async::Task<absl::StatusOr<Pulse>> Look();

 private:
  async::Task<absl::StatusOr<int64_t>> Now(sql::Transaction& tx);
  async::Task<absl::Status> SettleIn(sql::Transaction& tx, const std::string& name);
  async::Task<absl::Status> ApplyOne(sql::Transaction& tx, Step& step, bool shared);

  sql::Database& database_;
  const FeedInfo& info_;
  const std::string process_;
  const Options options_;
};

}  // namespace poststelle::fetcher
