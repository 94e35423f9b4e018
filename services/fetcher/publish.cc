#include "services/fetcher/publish.h"

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "libs/base/failpoint.h"
#include "libs/base/ids.h"
#include "libs/base/status_macros.h"
#include "poststelle/fetcher/v1/ticket.pb.h"
#include "services/fetcher/reply_matcher.h"

namespace poststelle::fetcher {
namespace {

using Params = std::vector<sql::Value>;

Params Identity(const Publication& p) {
  return {p.folder.mailbox.key, p.folder.generation, p.folder.folder, int64_t{p.uid_validity}, int64_t{p.uid}};
}

sql::Value OptionalText(const std::string& text) { return text.empty() ? sql::Value() : sql::Value(text); }
sql::Value OptionalBlob(const std::string& bytes) {
  return bytes.empty() ? sql::Value() : sql::Value(sql::Blob{bytes});
}

// The message that has the same bytes, if this one is to count as the same mail (SPEC §5.4): without a Message-ID only
// if the receive times agree.
async::Task<absl::StatusOr<std::optional<std::string>>> FindDuplicate(sql::Transaction& tx, const Publication& p) {
  if (p.digest.empty()) co_return std::nullopt;
  Params params{p.folder.mailbox.key, sql::Blob{p.digest}};
  PS_CO_ASSIGN_OR_RETURN(sql::Result same,
                         co_await tx.Execute("SELECT message_id, internal_date FROM message WHERE mailbox_key = $1 AND "
                                             "digest = $2 AND state = 'published' ORDER BY list_time, uid",
                                             std::move(params)));
  const int64_t received = p.content.receive_time().seconds();
  for (const sql::Row& row : same.rows) {
    if (!p.content.message_id().empty() || row.Int(1) == received) co_return row.Text(0);
  }
  co_return std::nullopt;
}

// Settles the row: the outcome and everything that recognises the mail later.
async::Task<absl::Status> Settle(sql::Transaction& tx, const Publication& p, std::string_view state,
                                 const std::string& reason, const std::string& ticket_id, const std::string& related) {
  Params params = Identity(p);
  params.emplace_back(std::string(state));
  params.emplace_back(reason);
  params.emplace_back(NowMs());
  params.emplace_back(OptionalBlob(p.anchor));
  params.emplace_back(OptionalBlob(p.digest));
  params.emplace_back(OptionalText(IndexKey(p.content.message_id())));
  params.emplace_back(OptionalBlob(p.raw ? p.raw->sha256 : std::string()));
  params.emplace_back(OptionalText(ticket_id));
  params.emplace_back(OptionalText(related));
  params.emplace_back(int64_t{p.content.undecodable()});
  co_return (co_await tx.Execute(
                 "UPDATE message SET state = $6, reason = $7, decide_time = $8, anchor = $9, digest = $10, "
                 "internet_message_id = $11, raw_sha256 = $12, ticket_id = $13, related_message_id = $14, "
                 "undecodable = $15 WHERE mailbox_key = $1 AND generation = $2 AND folder = $3 AND uid_validity = $4 "
                 "AND uid = $5 AND state = 'pending'",
                 std::move(params)))
      .status();
}

async::Task<absl::Status> StoreContent(sql::Transaction& tx, const std::string& message_id, const Publication& p) {
  if (p.raw) PS_CO_RETURN_IF_ERROR(co_await blob::Put(tx, *p.raw));
  Params params{message_id, sql::Blob{p.content.SerializeAsString()}};
  co_return (co_await tx.Execute("INSERT INTO message_content (message_id, content) VALUES ($1, $2) ON CONFLICT DO "
                                 "NOTHING",
                                 std::move(params)))
      .status();
}

// Opens the ticket or adds to it; participants and references included.
async::Task<absl::Status> TouchTicket(sql::Transaction& tx, const Publication& p, const std::string& ticket_id,
                                      bool opened, const std::string& message_id, const FeedInfo& feed) {
  const int64_t now = NowMs();
  if (opened) {
    Params params{ticket_id, p.folder.mailbox.id, p.content.subject(), int64_t{PartitionOf(ticket_id, feed.partitions)},
                  now};
    PS_CO_RETURN_IF_ERROR((co_await tx.Execute("INSERT INTO ticket (ticket_id, mailbox_id, subject, feed_partition, "
                                               "create_time, update_time, message_count) VALUES ($1, $2, $3, $4, $5, "
                                               "$5, 1)",
                                               std::move(params)))
                              .status());
  } else {
    Params params{ticket_id, now};
    PS_CO_RETURN_IF_ERROR((co_await tx.Execute("UPDATE ticket SET update_time = $2, message_count = message_count + 1 "
                                               "WHERE ticket_id = $1",
                                               std::move(params)))
                              .status());
  }
  Params link{ticket_id, message_id};
  PS_CO_RETURN_IF_ERROR((co_await tx.Execute("INSERT INTO ticket_message (ticket_id, ordinal, message_id) SELECT $1, "
                                             "message_count, $2 FROM ticket WHERE ticket_id = $1",
                                             std::move(link)))
                            .status());
  for (const std::string& address : ParticipantsOf(p.content)) {
    Params params{ticket_id, address};
    PS_CO_RETURN_IF_ERROR((co_await tx.Execute("INSERT INTO ticket_participant (ticket_id, address) VALUES ($1, $2) ON "
                                               "CONFLICT DO NOTHING",
                                               std::move(params)))
                              .status());
  }
  for (const std::string& reference : ReferencesOf(p.content)) {
    Params params{p.folder.mailbox.key, reference, ticket_id};
    PS_CO_RETURN_IF_ERROR((co_await tx.Execute("INSERT INTO thread_reference (mailbox_key, internet_message_id, "
                                               "ticket_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                                               std::move(params)))
                              .status());
  }
  co_return absl::OkStatus();
}

async::Task<absl::Status> AppendEvent(sql::Transaction& tx, const std::string& ticket_id, bool opened,
                                      const std::string& message_id, const FeedInfo& feed) {
  const int64_t partition = PartitionOf(ticket_id, feed.partitions);
  Params head{partition};
  PS_CO_ASSIGN_OR_RETURN(
      sql::Result next, co_await tx.Execute("UPDATE partition_head SET last_offset = last_offset + 1 WHERE partition = "
                                            "$1 RETURNING last_offset",
                                            std::move(head)));
  if (next.rows.empty()) co_return absl::InternalError(absl::StrCat("feed partition ", partition, " has no head row"));
  Params params{partition,
                next.rows[0].Int(0),
                DerivedId("event", message_id),
                ticket_id,
                int64_t{opened ? v1::TicketEvent::TYPE_TICKET_OPENED : v1::TicketEvent::TYPE_REPLY_ADDED},
                message_id,
                NowMs()};
  co_return (
      co_await tx.Execute("INSERT INTO event (feed_partition, feed_offset, event_id, ticket_id, type, message_id, "
                          "create_time) VALUES ($1, $2, $3, $4, $5, $6, $7)",
                          std::move(params)))
      .status();
}

}  // namespace

int PartitionOf(const std::string& ticket_id, int partitions) {
  const std::string hash = Sha256(ticket_id);
  return static_cast<unsigned char>(hash[0]) % partitions;
}

async::Task<absl::Status> Publish(sql::Transaction& tx, const Publication& p, const FeedInfo& feed) {
  PS_CO_ASSIGN_OR_RETURN(sql::Result row,
                         co_await tx.Execute("SELECT state, message_id FROM message WHERE mailbox_key = $1 AND "
                                             "generation = $2 AND folder = $3 AND uid_validity = $4 AND uid = $5",
                                             Identity(p)));
  if (row.rows.empty()) co_return absl::InternalError("a message that was not listed can't be published");
  const bool broken = DeliberatelyBroken("pending_closed_before_publication");
  if (row.rows[0].Text(0) != "pending" && !broken) co_return absl::OkStatus();
  const std::string message_id = row.rows[0].Text(1);
  PS_CO_RETURN_IF_ERROR(co_await StoreContent(tx, message_id, p));

  PS_CO_ASSIGN_OR_RETURN(std::optional<std::string> duplicate, co_await FindDuplicate(tx, p));
  if (duplicate) {
    co_return co_await Settle(tx, p, "duplicate", "The same mail was delivered before.", "", *duplicate);
  }
  PS_CO_ASSIGN_OR_RETURN(std::optional<std::string> ticket, co_await FindTicket(tx, p.folder.mailbox.key, p.content));
  const bool opened = !ticket.has_value();
  const std::string ticket_id = ticket ? *ticket : DerivedId("ticket", message_id);
  PS_CO_RETURN_IF_ERROR(co_await TouchTicket(tx, p, ticket_id, opened, message_id, feed));
  PS_CO_RETURN_IF_ERROR(co_await AppendEvent(tx, ticket_id, opened, message_id, feed));
  Failpoint("publication.in_transaction");
  co_return co_await Settle(tx, p, "published", "", ticket_id, "");
}

}  // namespace poststelle::fetcher
