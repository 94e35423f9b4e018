// Mailboxes in SQL: definitions, sealed passwords, and the log of changes that the watch reads.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"
#include "libs/sql/database.h"
#include "poststelle/config/v1/mailbox.pb.h"

namespace poststelle::config {

std::vector<sql::Migration> ConfigMigrations();

// Writers take turns: whoever has the turn decides on what the one before left, until its transaction ends. Epoch()
// made the row that it locks.
async::Task<absl::Status> TakeTurn(sql::Transaction& tx);

// A mailbox as stored: never with its password in clear.
struct StoredMailbox {
  v1::Mailbox mailbox;
  std::string sealed_password;  // libs/secrets; empty if there is none
};

// How a create is recognised when it is sent again.
struct RequestMark {
  std::string id;    // empty: it is not
  std::string hash;  // keyed, over the whole request
  // Whether a stored hash is of this request: kInvalidArgument if not, kNotFound if that can't be told any more.
  std::function<absl::Status(const std::string& stored)> is_same;
};

// One change, in order of its revision.
struct Change {
  int64_t revision = 0;
  std::string mailbox_id;
  std::optional<v1::Mailbox> mailbox;  // as it is now; empty: deleted
};

// Thread-safe. Errors: kNotFound (MAILBOX_NOT_FOUND), kAlreadyExists (DISPLAY_NAME_TAKEN, MAILBOX_EXISTS), kAborted
// (ETAG_MISMATCH), kUnavailable (KEY_RETIRED: seal again), each with its reason.
class MailboxStore {
 public:
  // `history`: how many changes are kept for watchers that come back.
  MailboxStore(sql::Database& database, int64_t history) : database_(database), history_(history) {}

  // Names this database's history of changes. Made at the first call.
  async::Task<absl::StatusOr<std::string>> Epoch();
  // Stores a new mailbox; sets times, generations and etag. With a request id that was seen before: the mailbox of then
  // if the request was the same, kInvalidArgument (REQUEST_ID_REUSED) if not.
  async::Task<absl::StatusOr<v1::Mailbox>> Create(StoredMailbox mailbox, RequestMark request);
  async::Task<absl::StatusOr<StoredMailbox>> Get(std::string id);
  // By display name behind `after` (a name key), at most `limit`.
  async::Task<absl::StatusOr<std::vector<v1::Mailbox>>> List(std::string after, int limit);
  // Replaces a mailbox whose etag is still `expected_etag`; an empty sealed password keeps the one there is. Counts the
  // generations up where the change asks for it.
  async::Task<absl::StatusOr<v1::Mailbox>> Update(StoredMailbox mailbox, std::string expected_etag);
  async::Task<absl::Status> Delete(std::string id, std::string expected_etag);

  struct Snapshot {
    std::vector<v1::Mailbox> mailboxes;
    int64_t revision = 0;
  };
  async::Task<absl::StatusOr<Snapshot>> ReadSnapshot();
  // Changes after `revision`, at most 500; kOutOfRange (REVISION_COMPACTED) if some of them are no longer kept.
  async::Task<absl::StatusOr<std::vector<Change>>> ReadChanges(int64_t revision);

 private:
  sql::Database& database_;
  const int64_t history_;
};

}  // namespace poststelle::config
