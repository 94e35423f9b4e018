// The ledger: which mail was listed, and what became of it. The truth behind "never lost, never published twice".
//
// Legal states of a message row, and the only changes between them:
//
//   (none)  → pending | passed_over | as_read | recognised      by a listing's commit
//   as_read → pending | passed_over                             it became unread, or too old to wait for
//   as_read → passed_over, pending → gone                       the mailbox names other folders (CloseLeftFolder)
//   passed_over → pending | as_read, as_read → pending          the mailbox's import options became wider (Reconsider)
//   pending → published | duplicate | quarantined | gone        by a publication's commit
//   gone    → pending                                           listed again: the server took back a UIDVALIDITY
//
// Everything else is final. Writes happen inside a transaction that has checked the mailbox's fence (committer.h).
//
// A statement that names one row by its key writes its state as `state || ''`: PostgreSQL would otherwise take the
// partial index message_open, which it believes to be tiny, and read every pending row of the mailbox for each one.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/blob/blob_store.h"
#include "libs/sql/database.h"
#include "poststelle/fetcher/v1/message.pb.h"

namespace poststelle::fetcher {

// Identity of a mailbox in the ledger: resource id and creation time, so that a mailbox that was deleted and made again
// under the same id starts anew (SPEC §5.11).
struct MailboxKey {
  std::string id;   // the last part of mailboxes/{mailbox}
  std::string key;  // id@creation time
};

// A folder of a mailbox in one connection generation.
struct FolderKey {
  MailboxKey mailbox;
  int64_t generation = 1;
  std::string folder;
};

inline constexpr int64_t kUnlimitedAge = std::numeric_limits<int64_t>::max();

// How far a folder is decided.
struct Cursor {
  uint32_t uid_validity = 0;  // 0: never listed
  uint32_t watermark = 0;     // every UID up to it is decided
  uint64_t highest_modseq = 0;
  // Start of the last complete listing; 0: none yet; below 0: its negative, while a relisting is going on.
  int64_t reference_ms = 0;
  int64_t enable_generation = 0;
  // The import options by which it was decided what to pass over: wider ones re-evaluate that, once (SPEC §5.3).
  int64_t max_age_s = 0;  // 0: not recorded; kUnlimitedAge
  bool also_read = false;
  bool operator==(const Cursor&) const = default;
};

// What a listing decided for one UID.
struct Decision {
  enum class Kind { kPending, kPassedOver, kAsRead, kRecognised };
  // The rule that passed it over.
  enum class Rule { kNone, kDeleted, kAge, kRead };
  uint32_t uid = 0;
  Kind kind = Kind::kPending;
  Rule rule = Rule::kNone;
  std::string reason;
  bool historical = false;
  uint64_t size = 0;
  int64_t internal_date = 0;  // seconds since 1970
  std::string recognised_as;  // message id; only for kRecognised
  bool attempted = false;     // its first attempt is counted with it; only for kPending
};

// A message that waits to be fetched.
struct PendingMessage {
  uint32_t uid = 0;
  uint64_t size = 0;
  int64_t internal_date = 0;
  bool historical = false;
  int attempts = 0;      // begun by other process starts, which did not finish them
  bool counted = false;  // the attempt of ours is counted already
  std::string message_id;
};

// What the event of a publication does to its ticket, as it is stored with the event (event_effects.h); empty: nothing.
struct EventEffects {
  std::string if_opened;  // where the mail opens a ticket
  std::string if_reply;   // where it joins one
};

// Everything a publication needs, computed before the transaction.
struct Publication {
  FolderKey folder;
  uint32_t uid_validity = 0;
  uint32_t uid = 0;
  v1::Message content;
  std::string digest;                    // 32 bytes; empty for a mail whose body was not fetched
  std::string anchor;                    // 32 bytes
  std::optional<blob::EncodedBlob> raw;  // absent for a mail above the size limit
  EventEffects effects;
  std::string after_import;  // what is due on the server once it is published (after_import.h); or empty
};

// Where a row that an anchor matched leads.
struct AnchorMatch {
  std::string message_id;
  std::string ticket_id;
};

// Feed constants, read once at start. Parts keep references to the one of their process, which is filled in before they
// begin to work (prepare.h).
struct FeedInfo {
  std::string epoch;
  int partitions = 0;
};

int64_t NowMs();
// message id of an identity; the same on every try.
std::string MessageIdOf(const FolderKey& folder, uint32_t uid_validity, uint32_t uid);

// Creates the feed row (epoch, 64 partitions) where there is none, and returns it.
async::Task<absl::StatusOr<FeedInfo>> EnsureFeed(sql::Database& database);

// --- reads -------------------------------------------------------------------------------------------------------

// The fence of each mailbox (0: never taken), in the order of `mailbox_keys`.
async::Task<absl::StatusOr<std::vector<int64_t>>> ReadFences(sql::Transaction& tx,
                                                             const std::vector<std::string>& mailbox_keys);
async::Task<absl::StatusOr<std::optional<Cursor>>> ReadCursor(sql::Transaction& tx, const FolderKey& folder);
// Messages to fetch, in the order to fetch them: new mail by UID before backlog, backlog newest first; at most `limit`.
// With `new_only` no backlog. `holder` is the process start that asks.
async::Task<absl::StatusOr<std::vector<PendingMessage>>> ReadPending(sql::Transaction& tx, const FolderKey& folder,
                                                                     uint32_t uid_validity, bool new_only, int limit,
                                                                     std::string holder);
struct OpenRow {
  uint32_t uid = 0;
  uint64_t size = 0;
  int64_t internal_date = 0;
  bool historical = false;
};
// What was passed over as read and may still become unread.
async::Task<absl::StatusOr<std::vector<OpenRow>>> ReadAsRead(sql::Transaction& tx, const FolderKey& folder,
                                                             uint32_t uid_validity);
// What wider rules may import after all: everything as_read, and what was passed over for its age or because it was
// read, if it was received at or after `oldest` (seconds since 1970).
struct PassedOver {
  uint32_t uid = 0;
  int64_t internal_date = 0;
  bool as_read = false;  // not final yet
};
async::Task<absl::StatusOr<std::vector<PassedOver>>> ReadPassedOver(sql::Transaction& tx, const FolderKey& folder,
                                                                    uint32_t uid_validity, int64_t oldest);
// UIDs from `first` to `last` whose mail was imported, or would not be for another reason than its age, its read mark
// or its deletion: what a preview passes over.
async::Task<absl::StatusOr<std::vector<uint32_t>>> ReadSettled(sql::Transaction& tx, const FolderKey& folder,
                                                               uint32_t uid_validity, uint32_t first, uint32_t last);
// True if the mailbox has fetched mail under another UIDVALIDITY or connection, whose anchors may recognise a listing.
async::Task<absl::StatusOr<bool>> HasOlderIdentities(sql::Transaction& tx, const FolderKey& folder,
                                                     uint32_t uid_validity);
// The row that `anchor` recognises, if one is left: each older row vouches for one new UID only, so that two mails
// with equal anchors are never taken for one. Marks it as used when `use` is set.
async::Task<absl::StatusOr<std::optional<AnchorMatch>>> MatchAnchor(sql::Transaction& tx, const FolderKey& folder,
                                                                    uint32_t uid_validity, const std::string& anchor,
                                                                    const std::vector<std::string>& already_used);
// Sizes and receive times of mail that was pending under an older identity: such mail is imported whatever age or
// read mark say now (SPEC §5.1: a listed mail can't be lost).
async::Task<absl::StatusOr<std::vector<OpenRow>>> ReadStalePending(sql::Transaction& tx, const FolderKey& folder,
                                                                   uint32_t uid_validity);

// A folder that has pending or as_read rows although the mailbox names others now.
struct LeftFolder {
  FolderKey key;
  uint32_t uid_validity = 0;
};
async::Task<absl::StatusOr<std::vector<LeftFolder>>> ReadLeftFolders(sql::Transaction& tx,
                                                                     const std::vector<FolderKey>& present);

// --- writes (inside a fenced transaction) -------------------------------------------------------------------------

async::Task<absl::Status> WriteCursor(sql::Transaction& tx, const FolderKey& folder, Cursor cursor);
// Inserts what a listing decided. A row that is there already stays (replay). `holder` is the process start for which
// the attempts count of those that are marked as attempted.
async::Task<absl::Status> InsertDecisions(sql::Transaction& tx, const FolderKey& folder, uint32_t uid_validity,
                                          const std::vector<Decision>& decisions, std::string holder = "");
// as_read → pending (became unread) or passed_over (too old).
async::Task<absl::Status> SettleAsRead(sql::Transaction& tx, const FolderKey& folder, uint32_t uid_validity,
                                       const std::vector<uint32_t>& unread, const std::vector<uint32_t>& too_old);
// What wider rules import after all: as_read or passed_over → pending, marked historical; passed_over → as_read.
async::Task<absl::Status> Reconsider(sql::Transaction& tx, const FolderKey& folder, uint32_t uid_validity,
                                     const std::vector<uint32_t>& pending, const std::vector<uint32_t>& as_read);
// Pending rows of older identities can't be fetched any more: they end as gone, their mail was listed again.
async::Task<absl::Status> CloseStalePending(sql::Transaction& tx, const FolderKey& folder, uint32_t uid_validity);
// Ends what is open of a folder that the mailbox no longer names: as_read rows are passed over, since nobody looks
// whether they become unread; pending rows, which can't be fetched any more, are gone.
async::Task<absl::Status> CloseLeftFolder(sql::Transaction& tx, const LeftFolder& left);
// Counts an attempt for these messages on behalf of process start `holder`, before it is made.
async::Task<absl::Status> CountAttempts(sql::Transaction& tx, const std::set<std::string>& message_ids,
                                        std::string holder);
// Takes back what CountAttempts counted for `holder`, which lives. Needs no fence: somebody else may have counted its
// own attempt meanwhile, and that one stands. Repeated after a lost answer it takes back one too many, which only lets
// a message that kills workers do so once more.
async::Task<absl::Status> UncountAttempts(sql::Transaction& tx, const std::set<std::string>& message_ids,
                                          std::string holder);
// Ends a pending message without a publication.
async::Task<absl::Status> CloseAs(sql::Transaction& tx, const FolderKey& folder, uint32_t uid_validity, uint32_t uid,
                                  std::string_view state, const std::string& reason,
                                  const blob::EncodedBlob* raw = nullptr);
// Remembers that the server announced another size than it listed.
async::Task<absl::Status> CorrectSize(sql::Transaction& tx, const FolderKey& folder, uint32_t uid_validity,
                                      uint32_t uid, uint64_t size);

}  // namespace poststelle::fetcher
