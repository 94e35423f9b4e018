// What an operator asks about subscriptions: who reads them, how far, and what was set aside. SQL to protos, no gRPC.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"
#include "libs/sql/database.h"
#include "poststelle/fetcher/v1/ticket_feed_service.pb.h"
#include "services/fetcher/ledger.h"

namespace poststelle::fetcher {

// Read-only. Thread-safe.
class SubscriptionQueries {
 public:
  SubscriptionQueries(sql::Database& database, const FeedInfo& info) : database_(database), info_(info) {}

  // NotFound with reason SUBSCRIPTION_NOT_FOUND.
  async::Task<absl::StatusOr<v1::Subscription>> Get(std::string name);
  // By name, behind `after`, at most `limit`.
  async::Task<absl::StatusOr<std::vector<v1::Subscription>>> List(std::string after, int limit);
  // Behind this partition and offset, at most `limit`. NotFound with reason SUBSCRIPTION_NOT_FOUND.
  async::Task<absl::StatusOr<std::vector<v1::SetAsideEvent>>> ListSetAside(std::string name, int partition,
                                                                           int64_t offset, int limit);

 private:
  // Empty if there is none.
  async::Task<absl::StatusOr<std::optional<v1::Subscription>>> Read(sql::Transaction& tx, std::string name);
  sql::Database& database_;
  const FeedInfo& info_;
};

}  // namespace poststelle::fetcher
