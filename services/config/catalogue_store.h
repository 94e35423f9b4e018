// The catalogues in SQL: ticket statuses and labels, entries of one shape (SPEC section 3).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"
#include "libs/sql/database.h"
#include "services/config/mailbox_store.h"

namespace poststelle::config {

// Which catalogue, and how its errors call it.
struct Catalogue {
  std::string_view collection;  // first part of the resource names, for example "labels"
  std::string_view reason;      // first part of its errors' reasons, for example "LABEL"
  struct Seed {
    const char* id;
    const char* german;
    const char* english;
    const char* color;
  };
  std::vector<Seed> starting_set;
};
const Catalogue& TicketStatuses();
const Catalogue& Labels();

// An entry. Times are microseconds since 1970.
struct CatalogueEntry {
  std::string id;
  std::string german;
  std::string english;
  std::string color;
  int64_t create_time = 0;
  int64_t update_time = 0;
  std::string etag;
};

// One catalogue. Thread-safe. Errors carry reasons made of the catalogue's: kNotFound (…_NOT_FOUND), kAlreadyExists
// (NAME_TAKEN, …_EXISTS), kAborted (ETAG_MISMATCH), kFailedPrecondition (…_IN_USE), kInvalidArgument
// (REQUEST_ID_REUSED, REFERENCE_NOT_FOUND).
class CatalogueStore {
 public:
  // `mailboxes` commits what changes mailboxes, too.
  CatalogueStore(sql::Database& database, const Catalogue& catalogue, MailboxStore& mailboxes)
      : database_(database), catalogue_(catalogue), mailboxes_(mailboxes) {}

  // Makes the starting set, once in the life of the database.
  async::Task<absl::Status> Seed();
  // `request_id` (empty: none) and `request_hash` recognise a repeat. An empty colour takes the one that is used least.
  async::Task<absl::StatusOr<CatalogueEntry>> Create(CatalogueEntry entry, std::string request_id,
                                                     std::string request_hash, Commit commit);
  async::Task<absl::StatusOr<CatalogueEntry>> Get(std::string id);
  // By German name behind `after` (a name's key), at most `limit`; only entries whose names hold `text`.
  async::Task<absl::StatusOr<std::vector<CatalogueEntry>>> List(std::string text, std::string after, int limit);
  async::Task<absl::StatusOr<CatalogueEntry>> Update(CatalogueEntry entry, std::string expected_etag, Commit commit);
  // `replacement` (an id, or empty): what mailboxes that use it get instead.
  async::Task<absl::Status> Delete(std::string id, std::string expected_etag, std::string replacement, Commit commit);

  const Catalogue& catalogue() const { return catalogue_; }

 private:
  absl::Status NotFound(const std::string& id) const;
  async::Task<absl::StatusOr<std::optional<CatalogueEntry>>> Read(sql::Transaction& tx, std::string id) const;
  async::Task<absl::Status> CheckNames(sql::Transaction& tx, const CatalogueEntry& entry) const;
  async::Task<absl::Status> Write(sql::Transaction& tx, CatalogueEntry& entry) const;
  async::Task<absl::StatusOr<std::string>> RareColor(sql::Transaction& tx) const;
  std::string NameOf(const std::string& id) const;

  sql::Database& database_;
  const Catalogue& catalogue_;
  MailboxStore& mailboxes_;
};

}  // namespace poststelle::config
