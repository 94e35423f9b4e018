#include "services/config/schema.h"

#include "services/config/key_state.h"

namespace poststelle::config {
namespace {

constexpr std::string_view kSchema = R"sql(
CREATE TABLE config_epoch (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  epoch TEXT NOT NULL
);
CREATE TABLE mailbox (
  mailbox_id TEXT PRIMARY KEY,
  name_key TEXT NOT NULL,
  definition BLOB NOT NULL,
  sealed_password BLOB NOT NULL,
  etag TEXT NOT NULL
);
CREATE UNIQUE INDEX mailbox_by_name ON mailbox (name_key);
-- Every change in order; the newest ones are kept for watchers that come back. The row itself is read from mailbox.
CREATE TABLE mailbox_change (
  revision BIGINT PRIMARY KEY,
  mailbox_id TEXT NOT NULL
);
CREATE TABLE create_request (
  request_id TEXT PRIMARY KEY,
  request_hash TEXT NOT NULL,
  mailbox_id TEXT NOT NULL
);
)sql";

// Revisions come from one row that a writer holds until its commit: on a database with several writers they are
// committed in the order in which they were given out, and no watcher can step over one that is still on its way.
// The hashes of before were unkeyed, over requests that hold passwords: they go.
constexpr std::string_view kCounter = R"sql(
CREATE TABLE change_counter (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  revision BIGINT NOT NULL
);
INSERT INTO change_counter (id, revision) SELECT 1, COALESCE(MAX(revision), 0) FROM mailbox_change;
UPDATE create_request SET request_hash = '';
)sql";

// What mailboxes are listed, selected and ordered by, what they refer to, and the catalogues. Rows of before have no
// search_text until IndexMailboxes (mailbox_rows.h) has filled these columns from their definition.
constexpr std::string_view kSelection = R"sql(
ALTER TABLE mailbox ADD COLUMN direction INTEGER NOT NULL DEFAULT 1;
ALTER TABLE mailbox ADD COLUMN enabled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE mailbox ADD COLUMN address_key TEXT NOT NULL DEFAULT '';
ALTER TABLE mailbox ADD COLUMN search_text TEXT;
ALTER TABLE mailbox ADD COLUMN create_time BIGINT NOT NULL DEFAULT 0;
ALTER TABLE mailbox ADD COLUMN update_time BIGINT NOT NULL DEFAULT 0;
CREATE INDEX mailbox_by_address ON mailbox (address_key, mailbox_id);
CREATE INDEX mailbox_by_create_time ON mailbox (create_time, mailbox_id);
CREATE INDEX mailbox_by_update_time ON mailbox (update_time, mailbox_id);
CREATE TABLE mailbox_label (
  mailbox_id TEXT NOT NULL,
  label_key TEXT NOT NULL,
  label_value TEXT NOT NULL,
  PRIMARY KEY (mailbox_id, label_key)
);
CREATE INDEX mailbox_label_by_key ON mailbox_label (label_key, label_value);
-- Which field of which mailbox names which resource ("mailboxes/a", "labels/vip").
CREATE TABLE mailbox_reference (
  mailbox_id TEXT NOT NULL,
  field TEXT NOT NULL,
  target TEXT NOT NULL,
  PRIMARY KEY (mailbox_id, field, target)
);
CREATE INDEX mailbox_reference_by_target ON mailbox_reference (target);
-- Entries of the catalogues; collection is "ticketStatuses" or "labels".
CREATE TABLE catalogue_entry (
  collection TEXT NOT NULL,
  entry_id TEXT NOT NULL,
  german_key TEXT NOT NULL,
  english_key TEXT NOT NULL,
  definition BLOB NOT NULL,
  etag TEXT NOT NULL,
  PRIMARY KEY (collection, entry_id)
);
CREATE UNIQUE INDEX catalogue_by_german ON catalogue_entry (collection, german_key);
CREATE UNIQUE INDEX catalogue_by_english ON catalogue_entry (collection, english_key);
-- Catalogues whose starting set was made; a person may have deleted it since.
CREATE TABLE catalogue_seeded (
  collection TEXT PRIMARY KEY
);
)sql";

}  // namespace

std::vector<sql::Migration> ConfigMigrations() {
  return {{1, "mailboxes", kSchema},
          {2, "counter of changes, keyed request hashes", kCounter},
          {3, "selection, references, catalogues", kSelection},
          {4, "states of keys", kKeyStateSchema}};
}

}  // namespace poststelle::config
