#include "services/fetcher/publish.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "libs/base/failpoint.h"
#include "libs/base/ids.h"
#include "libs/base/status_macros.h"
#include "libs/sql/insert.h"
#include "poststelle/fetcher/v1/ticket.pb.h"
#include "services/fetcher/reply_matcher.h"

namespace poststelle::fetcher {
namespace {

using Params = std::vector<sql::Value>;
using Statements = std::vector<sql::Statement>;
using Rows = std::vector<Params>;

Params Identity(const Publication& p) {
  return {p.folder.mailbox.key, p.folder.generation, p.folder.folder, int64_t{p.uid_validity}, int64_t{p.uid}};
}

sql::Value OptionalText(const std::string& text) { return text.empty() ? sql::Value() : sql::Value(text); }
sql::Value OptionalBlob(const std::string& bytes) {
  return bytes.empty() ? sql::Value() : sql::Value(sql::Blob{bytes});
}

// One publication and what was found out about it.
struct Item {
  const Publication* p = nullptr;
  std::string message_id;
  std::string duplicate_of;  // empty: none
  std::string ticket_id;
  bool opened = false;
};

// What a later mail of the same mailbox may find in an earlier one: its bytes and the Message-IDs it knows.
std::vector<std::string> Traces(const Publication& p) {
  std::vector<std::string> out;
  if (!p.digest.empty()) out.push_back(absl::StrCat(p.folder.mailbox.key, "\ndigest\n", p.digest));
  for (const std::string& id : ReferencesOf(p.content)) {
    out.push_back(absl::StrCat(p.folder.mailbox.key, "\nid\n", id));
  }
  return out;
}

// The publications whose rows are still pending.
async::Task<absl::StatusOr<std::vector<Item>>> StillPending(sql::Transaction& tx,
                                                            const std::vector<const Publication*>& publications) {
  Statements statements;
  for (const Publication* p : publications) {
    statements.push_back(
        {"SELECT state, message_id FROM message WHERE mailbox_key = $1 AND generation = $2 AND folder = "
         "$3 AND uid_validity = $4 AND uid = $5",
         Identity(*p)});
  }
  PS_CO_ASSIGN_OR_RETURN(std::vector<sql::Result> rows, co_await tx.ExecuteAll(std::move(statements)));
  std::vector<Item> items;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].rows.empty()) co_return absl::InternalError("a message that was not listed can't be published");
    const sql::Row& row = rows[i].rows[0];
    if (row.Text(0) != "pending" && !DeliberatelyBroken("pending_closed_before_publication")) continue;
    Item item;
    item.p = publications[i];
    item.message_id = row.Text(1);
    items.push_back(std::move(item));
  }
  co_return items;
}

async::Task<absl::Status> StoreContents(sql::Transaction& tx, const std::vector<Item>& items) {
  static const sql::RowInsert kContent("INSERT INTO message_content (message_id, content) VALUES", 2,
                                       "ON CONFLICT DO NOTHING");
  std::vector<const blob::EncodedBlob*> blobs;
  Rows contents;
  for (const Item& item : items) {
    if (item.p->raw) blobs.push_back(&*item.p->raw);
    Params& row = contents.emplace_back();  // an initializer list would copy the bytes once more
    row.emplace_back(item.message_id);
    row.emplace_back(sql::Blob{item.p->content.SerializeAsString()});
  }
  Statements statements;
  blob::AppendPut(std::move(blobs), statements);
  kContent.Append(std::move(contents), statements);
  co_return (co_await tx.ExecuteAll(std::move(statements))).status();
}

// The messages that have the same bytes, if these are to count as the same mail (SPEC §5.4): without a Message-ID only
// if the receive times agree.
async::Task<absl::Status> FindDuplicates(sql::Transaction& tx, std::vector<Item*>& wave) {
  if (DeliberatelyBroken("digest_ignored")) co_return absl::OkStatus();
  Statements statements;
  std::vector<Item*> asked;
  for (Item* item : wave) {
    if (item->p->digest.empty()) continue;
    asked.push_back(item);
    statements.push_back(
        {"SELECT message_id, internal_date FROM message WHERE mailbox_key = $1 AND digest = $2 AND "
         "state = 'published' ORDER BY list_time, uid",
         {item->p->folder.mailbox.key, sql::Blob{item->p->digest}}});
  }
  PS_CO_ASSIGN_OR_RETURN(std::vector<sql::Result> found, co_await tx.ExecuteAll(std::move(statements)));
  for (size_t i = 0; i < asked.size(); ++i) {
    const v1::Message& content = asked[i]->p->content;
    for (const sql::Row& row : found[i].rows) {
      if (content.message_id().empty() && row.Int(1) != content.receive_time().seconds()) continue;
      asked[i]->duplicate_of = row.Text(0);
      break;
    }
  }
  co_return absl::OkStatus();
}

async::Task<absl::Status> FindTickets(sql::Transaction& tx, std::vector<Item*>& wave) {
  Statements statements;
  std::vector<Item*> asked;  // an entry a statement
  for (Item* item : wave) {
    if (!item->duplicate_of.empty()) continue;
    for (sql::Statement& lookup : TicketLookups(item->p->folder.mailbox.key, item->p->content)) {
      statements.push_back(std::move(lookup));
      asked.push_back(item);
    }
  }
  PS_CO_ASSIGN_OR_RETURN(std::vector<sql::Result> found, co_await tx.ExecuteAll(std::move(statements)));
  for (size_t i = 0; i < asked.size(); ++i) {
    // The nearest reference comes first.
    if (asked[i]->ticket_id.empty() && !found[i].rows.empty()) asked[i]->ticket_id = found[i].rows[0].Text(0);
  }
  for (Item* item : wave) {
    if (!item->duplicate_of.empty() || !item->ticket_id.empty()) continue;
    item->opened = true;
    item->ticket_id = DerivedId("ticket", item->message_id);
  }
  co_return absl::OkStatus();
}

// Opens tickets or adds to them; participants and references included.
void AppendTickets(const std::vector<Item*>& wave, const FeedInfo& feed, Statements& out) {
  static const sql::RowInsert kTicket(
      "INSERT INTO ticket (ticket_id, mailbox_id, subject, feed_partition, create_time, update_time, message_count) "
      "VALUES",
      7);
  static const sql::RowInsert kMessage("INSERT INTO ticket_message (ticket_id, ordinal, message_id) VALUES", 3);
  static const sql::RowInsert kParticipant("INSERT INTO ticket_participant (ticket_id, address) VALUES", 2,
                                           "ON CONFLICT DO NOTHING");
  static const sql::RowInsert kReference(
      "INSERT INTO thread_reference (mailbox_key, internet_message_id, ticket_id) VALUES", 3, "ON CONFLICT DO NOTHING");
  const int64_t now = NowMs();
  Rows tickets, first_messages, participants, references;
  Statements replies;
  for (const Item* item : wave) {
    if (!item->duplicate_of.empty()) continue;
    const Publication& p = *item->p;
    if (item->opened) {
      tickets.push_back({item->ticket_id, p.folder.mailbox.id, p.content.subject(),
                         int64_t{PartitionOf(item->ticket_id, feed.partitions)}, now, now, int64_t{1}});
      first_messages.push_back({item->ticket_id, int64_t{1}, item->message_id});
    } else {
      replies.push_back({"UPDATE ticket SET update_time = $2, message_count = message_count + 1 WHERE ticket_id = $1",
                         {item->ticket_id, now}});
      replies.push_back(
          {"INSERT INTO ticket_message (ticket_id, ordinal, message_id) SELECT $1, message_count, $2 FROM ticket "
           "WHERE ticket_id = $1",
           {item->ticket_id, item->message_id}});
    }
    for (const std::string& address : ParticipantsOf(p.content)) participants.push_back({item->ticket_id, address});
    for (const std::string& reference : ReferencesOf(p.content)) {
      references.push_back({p.folder.mailbox.key, reference, item->ticket_id});
    }
  }
  kTicket.Append(std::move(tickets), out);
  kMessage.Append(std::move(first_messages), out);
  out.insert(out.end(), std::make_move_iterator(replies.begin()), std::make_move_iterator(replies.end()));
  kParticipant.Append(std::move(participants), out);
  kReference.Append(std::move(references), out);
}

// Settles the row: the outcome and everything that recognises the mail later.
void AppendOutcome(const Item& item, Statements& out) {
  const Publication& p = *item.p;
  const bool duplicate = !item.duplicate_of.empty();
  Params params = Identity(p);
  params.emplace_back(std::string(duplicate ? "duplicate" : "published"));
  params.emplace_back(std::string(duplicate ? "The same mail was delivered before." : ""));
  params.emplace_back(NowMs());
  params.emplace_back(OptionalBlob(p.anchor));
  params.emplace_back(OptionalBlob(p.digest));
  params.emplace_back(OptionalText(IndexKey(p.content.message_id())));
  params.emplace_back(OptionalBlob(p.raw ? p.raw->sha256 : std::string()));
  params.emplace_back(OptionalText(item.ticket_id));
  params.emplace_back(OptionalText(item.duplicate_of));
  params.emplace_back(int64_t{p.content.undecodable()});
  out.push_back(
      {"UPDATE message SET state = $6, reason = $7, decide_time = $8, anchor = $9, digest = $10, "
       "internet_message_id = $11, raw_sha256 = $12, ticket_id = $13, related_message_id = $14, "
       "undecodable = $15 WHERE mailbox_key = $1 AND generation = $2 AND folder = $3 AND uid_validity = $4 "
       "AND uid = $5 AND state || '' = 'pending'",
       std::move(params)});
}

async::Task<absl::Status> PublishWave(sql::Transaction& tx, std::vector<Item*>& wave, const FeedInfo& feed) {
  PS_CO_RETURN_IF_ERROR(co_await FindDuplicates(tx, wave));
  PS_CO_RETURN_IF_ERROR(co_await FindTickets(tx, wave));
  Statements statements;
  AppendTickets(wave, feed, statements);
  for (const Item* item : wave) AppendOutcome(*item, statements);
  co_return (co_await tx.ExecuteAll(std::move(statements))).status();
}

// Events of each partition take the offsets behind its head. The heads are locked last and ascending: until the commit
// every other worker's publication waits for them.
async::Task<absl::Status> AppendEvents(sql::Transaction& tx, const std::vector<Item>& items, const FeedInfo& feed) {
  static const sql::RowInsert kEvent(
      "INSERT INTO event (feed_partition, feed_offset, event_id, ticket_id, type, message_id, create_time, effects) "
      "VALUES",
      8);
  std::map<int64_t, std::vector<const Item*>> by_partition;
  for (const Item& item : items) {
    if (item.duplicate_of.empty()) by_partition[PartitionOf(item.ticket_id, feed.partitions)].push_back(&item);
  }
  Statements heads;
  for (const auto& [partition, events] : by_partition) {
    heads.push_back(
        {"UPDATE partition_head SET last_offset = last_offset + $2 WHERE partition = $1 RETURNING last_offset",
         {partition, static_cast<int64_t>(events.size())}});
  }
  PS_CO_ASSIGN_OR_RETURN(std::vector<sql::Result> moved, co_await tx.ExecuteAll(std::move(heads)));
  const int64_t now = NowMs();
  Rows rows;
  size_t at = 0;
  for (const auto& [partition, events] : by_partition) {
    const sql::Result& head = moved[at++];
    if (head.rows.size() != 1) co_return absl::InternalError("a partition of the feed has no head row");
    int64_t offset = head.rows[0].Int(0) - static_cast<int64_t>(events.size());
    for (const Item* item : events) {
      const EventEffects& effects = item->p->effects;
      rows.push_back({partition, ++offset, DerivedId("event", item->message_id), item->ticket_id,
                      int64_t{item->opened ? v1::TicketEvent::TYPE_TICKET_OPENED : v1::TicketEvent::TYPE_REPLY_ADDED},
                      item->message_id, now, OptionalBlob(item->opened ? effects.if_opened : effects.if_reply)});
    }
  }
  Statements statements;
  kEvent.Append(std::move(rows), statements);
  co_return (co_await tx.ExecuteAll(std::move(statements))).status();
}

}  // namespace

int PartitionOf(const std::string& ticket_id, int partitions) {
  const std::string hash = Sha256(ticket_id);
  return static_cast<unsigned char>(hash[0]) % partitions;
}

async::Task<absl::Status> PublishAll(sql::Transaction& tx, const std::vector<const Publication*>& publications,
                                     const FeedInfo& feed) {
  if (publications.empty()) co_return absl::OkStatus();
  PS_CO_ASSIGN_OR_RETURN(std::vector<Item> items, co_await StillPending(tx, publications));
  if (items.empty()) co_return absl::OkStatus();
  PS_CO_RETURN_IF_ERROR(co_await StoreContents(tx, items));
  // A mail that may find an earlier one of these (its bytes, a Message-ID) comes in a later wave, when that one is
  // there.
  size_t at = 0;
  while (at < items.size()) {
    std::set<std::string> traces;
    std::vector<Item*> wave;
    for (; at < items.size(); ++at) {
      const std::vector<std::string> own = Traces(*items[at].p);
      const bool depends = std::any_of(own.begin(), own.end(), [&traces](const auto& t) { return traces.contains(t); });
      if (depends) break;
      traces.insert(own.begin(), own.end());
      wave.push_back(&items[at]);
    }
    PS_CO_RETURN_IF_ERROR(co_await PublishWave(tx, wave, feed));
  }
  Failpoint("publication.in_transaction");
  co_return co_await AppendEvents(tx, items, feed);
}

}  // namespace poststelle::fetcher
