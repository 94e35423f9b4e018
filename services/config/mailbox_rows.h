// Mailboxes as rows: reading, writing with everything that is derived from them, and the log of changes. Each function
// works within the caller's transaction.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"
#include "libs/sql/database.h"
#include "poststelle/config/v1/mailbox.pb.h"

namespace poststelle::config {

// A mailbox as stored: never with its password in clear.
struct StoredMailbox {
  v1::Mailbox mailbox;
  std::string sealed_password;  // libs/secrets; empty if there is none
};

// The `{mailbox}` of its resource name.
std::string IdOf(const v1::Mailbox& mailbox);

// `text` anywhere, as a LIKE pattern with the escape character '\\'.
std::string LikePattern(const std::string& text);

// The name to sign in with: the login name, or the address where none is given.
const std::string& LoginName(const v1::Mailbox& mailbox);

absl::Status MailboxNotFound(const std::string& id);  // kNotFound, MAILBOX_NOT_FOUND
absl::Status EtagMismatch(const std::string& name);   // kAborted, ETAG_MISMATCH

// Changes take turns: each one decides on what the one before left, and revisions have no gaps, so that a watcher who
// has seen a revision has seen all before it. Held until the transaction ends. Needs MailboxStore::Epoch() before.
async::Task<absl::Status> TakeTurn(sql::Transaction& tx);

// Reads one mailbox, and what the answer says; nothing if there is none of that id.
sql::Statement SelectMailbox(std::string id);
absl::StatusOr<std::optional<StoredMailbox>> ToMailbox(const sql::Result& found);
// Both, within a transaction.
async::Task<absl::StatusOr<std::optional<StoredMailbox>>> ReadMailbox(sql::Transaction& tx, std::string id);

// Inserts or replaces: sets update time, etag and password_set, and what mailboxes are selected by. The change is
// logged for watchers; of the log the newest `history` entries are kept.
async::Task<absl::Status> WriteMailbox(sql::Transaction& tx, StoredMailbox& stored, int64_t history);

// Removes the mailbox and everything that is derived from it, and logs that.
async::Task<absl::Status> EraseMailbox(sql::Transaction& tx, std::string id, int64_t history);

// Puts `replacement` (empty: nothing) in the place of `target` in the mailboxes `ids`, each a change of its own.
async::Task<absl::Status> ReplaceInMailboxes(sql::Transaction& tx, std::vector<std::string> ids, std::string target,
                                             std::string replacement, int64_t history);

// Fills the columns of migration 3 for mailboxes that were stored before it, in transactions of bounded size.
// Repeatable.
async::Task<absl::Status> IndexMailboxes(sql::Database& database);

}  // namespace poststelle::config
