// The feed: reading committed events, and the word that there are new ones. SQL only, no gRPC.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "libs/async/runtime.h"
#include "libs/sql/database.h"
#include "poststelle/fetcher/v1/ticket.pb.h"
#include "services/fetcher/ledger.h"

namespace poststelle::fetcher {

// Leaves out what makes `event` larger than `max_bytes`: first the body and the attachments, then all but the name of
// its message. Sets `abridged` then.
void Abridge(v1::TicketEvent& event, size_t max_bytes);

// Thread-safe; state lives in SQL.
class TicketFeed {
 public:
  // What clients take by default is 4 MiB a message: events are abridged, and pages end, below it.
  static constexpr size_t kMaxEventBytes = 3 << 20;

  TicketFeed(asio::any_io_executor executor, sql::Database& database, const FeedInfo& info)
      : database_(database), info_(info), committed_(std::move(executor)) {}
  const FeedInfo& info() const { return info_; }

  // Committed events of one partition after `after`, at most `limit` (one at least, where there is one), at most
  // kMaxEventBytes altogether, in order; and the partition's last offset.
  struct Page {
    std::vector<v1::TicketEvent> events;
    int64_t last_offset = 0;
  };
  async::Task<absl::StatusOr<Page>> ReadPartition(int partition, int64_t after, int limit);

  // This process has committed events: whoever waits looks at once rather than at its next turn. Cheap.
  void Committed() { committed_.Notify(); }
  // Waits for Committed(); kDeadlineExceeded after `timeout`, kCancelled on cancellation. For one waiter.
  async::Task<absl::Status> WaitCommitted(absl::Duration timeout) { return committed_.Wait(timeout); }

 private:
  sql::Database& database_;
  const FeedInfo& info_;
  async::Event committed_;
};

}  // namespace poststelle::fetcher
