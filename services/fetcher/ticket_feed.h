// The feed behind TicketFeedService: reading events, and the cursor of each subscription. SQL only, no gRPC.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"
#include "libs/sql/database.h"
#include "poststelle/fetcher/v1/ticket.pb.h"
#include "services/fetcher/ledger.h"

namespace poststelle::fetcher {

// Offset by partition.
using Offsets = std::map<int, int64_t>;

// Thread-safe; state lives in SQL.
class TicketFeed {
 public:
  // How long a silent subscriber is waited for before another one of its name takes over.
  static constexpr absl::Duration kLease = absl::Seconds(10);

  TicketFeed(sql::Database& database, FeedInfo info) : database_(database), info_(std::move(info)) {}
  const FeedInfo& info() const { return info_; }

  struct Grant {
    int64_t generation = 0;
    Offsets acknowledged;
  };
  // Takes the subscription for `holder`, creating it at its first use (`from_now`: behind everything there is). Empty
  // if another holder has it.
  async::Task<absl::StatusOr<std::optional<Grant>>> Take(std::string name, std::string holder, bool from_now);
  // Keeps it; kAborted if it was taken over.
  async::Task<absl::Status> Keep(std::string name, std::string holder, int64_t generation);
  // Gives it back, so that the next one need not wait for the lease.
  async::Task<absl::Status> Leave(std::string name, int64_t generation);
  // Moves the cursor forward; checked against the generation in SQL. kAborted if it was taken over; an offset that was
  // never given out is kInvalidArgument.
  async::Task<absl::Status> Acknowledge(std::string name, int64_t generation, int partition, int64_t offset);

  // Committed events of one partition after `after`, in order, at most `limit` and at most what fits on a page
  // (PageBudget); none only if there are none. And the partition's last offset.
  struct Page {
    std::vector<v1::TicketEvent> events;
    int64_t last_offset = 0;
  };
  async::Task<absl::StatusOr<Page>> ReadPartition(int partition, int64_t after, int limit);
  // Last offset of every partition.
  async::Task<absl::StatusOr<Offsets>> Heads();

 private:
  sql::Database& database_;
  const FeedInfo info_;
};

}  // namespace poststelle::fetcher
