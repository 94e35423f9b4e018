#include "services/fetcher/schema.h"

#include "libs/blob/blob_store.h"

namespace poststelle::fetcher {
namespace {

constexpr std::string_view kLedger = R"sql(
-- One row: names this database's history of the feed.
CREATE TABLE feed (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  epoch TEXT NOT NULL,
  partitions INTEGER NOT NULL
);
-- The last offset given out in each partition; a publication takes the next one under this row's lock.
CREATE TABLE partition_head (
  partition INTEGER PRIMARY KEY,
  last_offset BIGINT NOT NULL
);
-- Who may write for a mailbox (DESIGN §3, I2).
CREATE TABLE mailbox_fence (
  mailbox_key TEXT PRIMARY KEY,
  fence BIGINT NOT NULL,
  holder TEXT NOT NULL
);
-- How far a folder is decided. Times are milliseconds since 1970.
CREATE TABLE folder_cursor (
  mailbox_key TEXT NOT NULL,
  generation BIGINT NOT NULL,
  folder TEXT NOT NULL,
  uid_validity BIGINT NOT NULL,
  watermark BIGINT NOT NULL,
  highest_modseq BIGINT NOT NULL,
  reference_time BIGINT NOT NULL,
  enable_generation BIGINT NOT NULL,
  PRIMARY KEY (mailbox_key, generation, folder)
);
-- One row a message that was listed: pending, or its outcome.
CREATE TABLE message (
  mailbox_key TEXT NOT NULL,
  generation BIGINT NOT NULL,
  folder TEXT NOT NULL,
  uid_validity BIGINT NOT NULL,
  uid BIGINT NOT NULL,
  message_id TEXT NOT NULL,
  mailbox_id TEXT NOT NULL,
  state TEXT NOT NULL,
  reason TEXT NOT NULL,
  historical INTEGER NOT NULL,
  size BIGINT NOT NULL,
  internal_date BIGINT NOT NULL,
  attempts INTEGER NOT NULL,
  attempt_holder TEXT NOT NULL,
  list_time BIGINT NOT NULL,
  decide_time BIGINT NOT NULL,
  anchor BLOB,
  digest BLOB,
  internet_message_id TEXT,
  raw_sha256 BLOB,
  ticket_id TEXT,
  related_message_id TEXT,
  undecodable INTEGER NOT NULL DEFAULT 0,
  superseded INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (mailbox_key, generation, folder, uid_validity, uid)
);
CREATE UNIQUE INDEX message_by_id ON message (message_id);
CREATE INDEX message_open ON message (mailbox_key, state) WHERE state IN ('pending', 'as_read');
CREATE INDEX message_by_anchor ON message (mailbox_key, anchor) WHERE anchor IS NOT NULL;
CREATE INDEX message_by_digest ON message (mailbox_key, digest) WHERE digest IS NOT NULL;
CREATE INDEX message_by_internet_id ON message (mailbox_key, internet_message_id) WHERE internet_message_id IS NOT NULL;
CREATE INDEX message_to_look_at ON message (decide_time, message_id) WHERE state = 'quarantined' OR undecodable = 1;
-- What was decoded of a fetched message: a serialised poststelle.fetcher.v1.Message.
CREATE TABLE message_content (
  message_id TEXT PRIMARY KEY,
  content BLOB NOT NULL
);
CREATE TABLE ticket (
  ticket_id TEXT PRIMARY KEY,
  mailbox_id TEXT NOT NULL,
  subject TEXT NOT NULL,
  feed_partition INTEGER NOT NULL,
  create_time BIGINT NOT NULL,
  update_time BIGINT NOT NULL,
  message_count BIGINT NOT NULL
);
CREATE INDEX ticket_by_time ON ticket (create_time, ticket_id);
CREATE TABLE ticket_message (
  ticket_id TEXT NOT NULL,
  ordinal BIGINT NOT NULL,
  message_id TEXT NOT NULL,
  PRIMARY KEY (ticket_id, ordinal)
);
CREATE TABLE ticket_participant (
  ticket_id TEXT NOT NULL,
  address TEXT NOT NULL,
  PRIMARY KEY (ticket_id, address)
);
-- Message-IDs that a mailbox's tickets know: of their messages, and what those refer to.
CREATE TABLE thread_reference (
  mailbox_key TEXT NOT NULL,
  internet_message_id TEXT NOT NULL,
  ticket_id TEXT NOT NULL,
  PRIMARY KEY (mailbox_key, internet_message_id, ticket_id)
);
CREATE TABLE event (
  feed_partition INTEGER NOT NULL,
  feed_offset BIGINT NOT NULL,
  event_id TEXT NOT NULL,
  ticket_id TEXT NOT NULL,
  type INTEGER NOT NULL,
  message_id TEXT NOT NULL,
  create_time BIGINT NOT NULL,
  PRIMARY KEY (feed_partition, feed_offset)
);
CREATE TABLE subscription (
  name TEXT PRIMARY KEY,
  generation BIGINT NOT NULL,
  holder TEXT NOT NULL,
  expire_time BIGINT NOT NULL
);
CREATE TABLE subscription_cursor (
  name TEXT NOT NULL,
  feed_partition INTEGER NOT NULL,
  acknowledged BIGINT NOT NULL,
  PRIMARY KEY (name, feed_partition)
);
-- Last known state of each mailbox: a serialised poststelle.fetcher.v1.MailboxStatus.
CREATE TABLE mailbox_status (
  mailbox_id TEXT PRIMARY KEY,
  status BLOB NOT NULL
);
)sql";

// Several subscribers share a subscription (services/fetcher/subscriptions.h). A fetcher of the version before, which
// knows one holder per subscription, finds the holder 'shared' there and waits.
constexpr std::string_view kSharedSubscriptions = R"sql(
-- Counts up at every change of the assignment, so that others see that there is something to read.
ALTER TABLE subscription ADD COLUMN version BIGINT NOT NULL DEFAULT 0;
-- Who delivers a partition ('': nobody), under which generation, and whom it is wanted for ('': stays where it is).
ALTER TABLE subscription_cursor ADD COLUMN generation BIGINT NOT NULL DEFAULT 0;
ALTER TABLE subscription_cursor ADD COLUMN holder TEXT NOT NULL DEFAULT '';
ALTER TABLE subscription_cursor ADD COLUMN wanted_by TEXT NOT NULL DEFAULT '';
-- The event that was refused last and how often; only the first unacknowledged one can be.
ALTER TABLE subscription_cursor ADD COLUMN refused_offset BIGINT NOT NULL DEFAULT 0;
ALTER TABLE subscription_cursor ADD COLUMN refusals BIGINT NOT NULL DEFAULT 0;
-- One row a live subscriber, renewed by the process that serves it.
CREATE TABLE subscription_member (
  name TEXT NOT NULL,
  member TEXT NOT NULL,
  process TEXT NOT NULL,
  join_time BIGINT NOT NULL,
  expire_time BIGINT NOT NULL,
  PRIMARY KEY (name, member)
);
CREATE INDEX subscription_member_by_process ON subscription_member (process);
-- Events that a subscription's consumers refused too often: passed over, for a person to look at.
CREATE TABLE subscription_set_aside (
  name TEXT NOT NULL,
  feed_partition INTEGER NOT NULL,
  feed_offset BIGINT NOT NULL,
  refusals BIGINT NOT NULL,
  reason TEXT NOT NULL,
  set_aside_time BIGINT NOT NULL,
  PRIMARY KEY (name, feed_partition, feed_offset)
);
)sql";

// What an event does to its ticket is fixed when it is published (services/fetcher/event_effects.h).
constexpr std::string_view kEventEffects = R"sql(
-- A serialised poststelle.fetcher.v1.TicketEvent with status, labels and reply_via alone; NULL: it has none of them.
ALTER TABLE event ADD COLUMN effects BLOB;
)sql";

}  // namespace

std::vector<sql::Migration> LedgerMigrations() {
  return {{1, "raw messages", blob::kBlobSchema},
          {2, "ledger, feed and subscriptions", kLedger},
          {3, "shared subscriptions", kSharedSubscriptions},
          {4, "effects of events", kEventEffects},
          {5, "raw messages in segment files", blob::kSegmentSchema}};
}

}  // namespace poststelle::fetcher
