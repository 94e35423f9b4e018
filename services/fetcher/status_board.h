// How each mailbox fares: kept in memory by the worker that polls it, written to SQL in batches.
#pragma once

#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"
#include "libs/sql/database.h"
#include "poststelle/fetcher/v1/fetch_service.pb.h"
#include "services/fetcher/ledger.h"
#include "services/fetcher/mailbox_catalog.h"

namespace poststelle::fetcher {

// The beginning of every notice about what is done on the server after an import (after_import.h).
inline constexpr char kActionNotice[] = "After import: ";

// Thread-safe. A poll that finds nothing costs no SQL statement of its own (DESIGN §3): states and reference times of
// all mailboxes go out together every kFlushInterval, many rows to a statement. A reference time that was lost in a
// crash only errs towards importing more. Several workers write the row of a mailbox, one after the other: the last
// poll stands, not the last writer, who may have been stopped or may just write later. (Workers' clocks are compared
// for that, as by Get.)
class StatusBoard {
 public:
  static constexpr absl::Duration kFlushInterval = absl::Seconds(5);

  StatusBoard(sql::Database& database, const MailboxCatalog& catalog) : database_(database), catalog_(catalog) {}

  void PollStarted(const std::string& mailbox_id, absl::Time now);
  void PollSucceeded(const std::string& mailbox_id, absl::Time started, absl::Time next, const std::string& notice);
  // Returns the number of failures in a row.
  int PollFailed(const std::string& mailbox_id, const std::string& reason, const std::string& text, absl::Time now);
  void SetNext(const std::string& mailbox_id, absl::Time next);
  // The mailbox was deleted.
  void Forget(const std::string& mailbox_id);
  // A complete listing of `folder` started at `reference_ms`.
  void ListingCompleted(const FolderKey& folder, int64_t reference_ms);

  // Reads what an earlier process left.
  async::Task<absl::Status> Load();
  // Writes what changed since the last call.
  async::Task<absl::Status> Flush();
  // Flush every kFlushInterval until cancelled, and once more at the end.
  async::Task<void> FlushLoop();

  // The state of a mailbox of the catalog, with counts from the ledger.
  async::Task<absl::StatusOr<v1::MailboxStatus>> Get(const config::v1::Mailbox& mailbox);

 private:
  v1::MailboxStatus& Entry(const std::string& mailbox_id);  // under mutex_
  async::Task<absl::Status> WriteStatuses();
  async::Task<absl::Status> WriteReferences();

  sql::Database& database_;
  const MailboxCatalog& catalog_;
  std::mutex mutex_;
  std::map<std::string, v1::MailboxStatus> statuses_;
  std::set<std::string> dirty_;
  std::map<std::string, std::pair<FolderKey, int64_t>> references_;
};

}  // namespace poststelle::fetcher
