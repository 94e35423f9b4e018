// Mailboxes in SQL: the transactions behind the API, and the log of changes that the watch reads.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"
#include "libs/sql/database.h"
#include "poststelle/config/v1/mailbox_service.pb.h"
#include "services/config/mailbox_rows.h"
#include "services/config/schema.h"

namespace poststelle::config {

// How a create is recognised when it is sent again.
struct RequestMark {
  std::string id;    // empty: it is not
  std::string hash;  // keyed, over the whole request
  // Whether a stored hash is of this request: kInvalidArgument if not, kNotFound if that can't be told any more.
  std::function<absl::Status(const std::string& stored)> is_same;
};

// Whether a transaction checks everything and changes nothing.
enum class Commit { kYes, kDryRun };

// One change, in order of its revision.
struct Change {
  int64_t revision = 0;
  std::string mailbox_id;
  std::optional<v1::Mailbox> mailbox;  // as it is now; empty: deleted
};

// Which mailboxes a list holds, and in what order; as in ListMailboxesRequest, which was checked.
struct MailboxSelection {
  enum class Order { kDisplayName, kAddress, kCreateTime, kUpdateTime };
  v1::Mailbox::Direction direction = v1::Mailbox::DIRECTION_UNSPECIFIED;  // unspecified: any
  std::optional<bool> enabled;
  std::vector<std::pair<std::string, std::optional<std::string>>> labels;  // key, and value where one is asked for
  std::string text;
  Order order = Order::kDisplayName;
  bool descending = false;
};

// Thread-safe. Errors: kNotFound (MAILBOX_NOT_FOUND), kAlreadyExists (DISPLAY_NAME_TAKEN, MAILBOX_EXISTS,
// COUNTERPART_EXISTS), kAborted (ETAG_MISMATCH), kInvalidArgument (REFERENCE_NOT_FOUND, REQUEST_ID_REUSED),
// kFailedPrecondition (MAILBOX_IN_USE), kUnavailable (KEY_RETIRED: seal again), each with its reason.
class MailboxStore {
 public:
  // `history`: how many changes are kept for watchers that come back.
  MailboxStore(sql::Database& database, int64_t history) : database_(database), history_(history) {}

  // Names this database's history of changes. Made at the first call.
  async::Task<absl::StatusOr<std::string>> Epoch();
  // Stores a new mailbox; sets times, generations and etag. With a request id that was seen before: the mailbox of then
  // if the request was the same. `counterpart_of`: id of the mailbox that is to name the new one as its counterpart.
  async::Task<absl::StatusOr<v1::Mailbox>> Create(StoredMailbox mailbox, RequestMark request,
                                                  Commit commit = Commit::kYes, std::string counterpart_of = "");
  async::Task<absl::StatusOr<StoredMailbox>> Get(std::string id);
  // A page: at most `limit` of the selection behind `after`, which is PositionOf the last one of the page before.
  async::Task<absl::StatusOr<std::vector<v1::Mailbox>>> List(MailboxSelection selection, std::string after, int limit);
  // Replaces it if its etag is `expected_etag`; counts generations up as the changes demand. An empty sealed password
  // keeps the stored one. An update that changes nothing leaves everything as it is, the etag too.
  async::Task<absl::StatusOr<v1::Mailbox>> Update(StoredMailbox mailbox, std::string expected_etag,
                                                  Commit commit = Commit::kYes);
  // Deletes it, if `expected_etag` is empty or its etag. Mailboxes that reply through it prevent that, unless
  // `clear_references`; that others name it as their counterpart is cleared always.
  async::Task<absl::Status> Delete(std::string id, std::string expected_etag, bool clear_references = false,
                                   Commit commit = Commit::kYes);

  struct Snapshot {
    int64_t revision = 0;
    std::vector<v1::Mailbox> mailboxes;
  };
  async::Task<absl::StatusOr<Snapshot>> ReadSnapshot();
  // Changes after `revision`, at most a few hundred. kOutOfRange (REVISION_COMPACTED) if some of them are no longer
  // kept or `revision` lies ahead of this database.
  async::Task<absl::StatusOr<std::vector<Change>>> ReadChanges(int64_t revision);
  // The revision of the last change.
  async::Task<absl::StatusOr<int64_t>> LastRevision();
  // Called after each change that this process has committed, on any thread: something is there for ReadChanges. Set
  // before the first call, and for the life of the store.
  void OnCommit(std::function<void()> call) { on_commit_ = std::move(call); }
  int64_t history() const { return history_; }

  // Runs `work`, which may change mailboxes, and commits, or rolls back what it did where it is only tried.
  async::Task<absl::Status> Run(sql::Work work, Commit commit);

 private:
  sql::Database& database_;
  const int64_t history_;
  std::function<void()> on_commit_;
};

// Whether messages of the server have other identities in `b` than in `a`: another server, port, protocol, login name
// or address. The connection generation counts it.
bool ConnectionChanged(const v1::Mailbox& a, const v1::Mailbox& b);

// Where `mailbox` stands in the order of `selection`, as text for List's `after`.
std::string PositionOf(const v1::Mailbox& mailbox, const MailboxSelection& selection);

}  // namespace poststelle::config
