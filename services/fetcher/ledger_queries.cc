#include "services/fetcher/ledger_queries.h"

#include <limits>
#include <map>

#include "absl/strings/str_cat.h"
#include "libs/base/reason.h"
#include "libs/base/status_macros.h"
#include "services/fetcher/reply_matcher.h"

namespace poststelle::fetcher {
namespace {

using Params = std::vector<sql::Value>;

constexpr int kMaxOutcomes = 100;
constexpr int kMaxTicketMessages = 1000;

v1::Outcome::Kind KindOf(const std::string& state) {
  static const std::map<std::string, v1::Outcome::Kind> kKinds = {
      {"pending", v1::Outcome::KIND_PENDING},     {"published", v1::Outcome::KIND_PUBLISHED},
      {"duplicate", v1::Outcome::KIND_DUPLICATE}, {"passed_over", v1::Outcome::KIND_PASSED_OVER},
      {"as_read", v1::Outcome::KIND_AS_READ},     {"quarantined", v1::Outcome::KIND_QUARANTINED},
      {"gone", v1::Outcome::KIND_GONE},           {"recognised", v1::Outcome::KIND_RECOGNISED}};
  auto it = kKinds.find(state);
  return it == kKinds.end() ? v1::Outcome::KIND_UNSPECIFIED : it->second;
}

constexpr std::string_view kOutcomeByInternetId =
    "SELECT state, reason, generation, folder, uid_validity, uid, mailbox_id, ticket_id, message_id, "
    "related_message_id, "
    "list_time, decide_time, attempts FROM message WHERE mailbox_key = $1 AND internet_message_id = $2 "
    "ORDER BY list_time, uid LIMIT $3";
constexpr std::string_view kOutcomeByIdentity =
    "SELECT state, reason, generation, folder, uid_validity, uid, mailbox_id, ticket_id, message_id, "
    "related_message_id, "
    "list_time, decide_time, attempts FROM message WHERE mailbox_key = $1 AND generation = $2 AND folder = $3 AND "
    "uid_validity = $4 AND uid = $5";
constexpr std::string_view kOutcomeById =
    "SELECT state, reason, generation, folder, uid_validity, uid, mailbox_id, ticket_id, message_id, "
    "related_message_id, "
    "list_time, decide_time, attempts FROM message WHERE message_id = $1";

constexpr std::string_view kContentById = "SELECT content FROM message_content WHERE message_id = $1";

v1::Outcome ToOutcome(const sql::Row& row) {
  v1::Outcome out;
  out.set_kind(KindOf(row.Text(0)));
  out.set_reason(row.Text(1));
  v1::ServerIdentity* identity = out.mutable_server_identity();
  identity->set_connection_generation(row.Int(2));
  identity->set_folder(row.Text(3));
  identity->set_uid_validity(static_cast<uint32_t>(row.Int(4)));
  identity->set_uid(static_cast<uint32_t>(row.Int(5)));
  out.set_mailbox("mailboxes/" + row.Text(6));
  if (!row.IsNull(7)) out.set_ticket("tickets/" + row.Text(7));
  out.set_message("messages/" + row.Text(8));
  if (!row.IsNull(9)) out.set_duplicate_of("messages/" + row.Text(9));
  SetMs(out.mutable_list_time(), row.Int(10));
  if (row.Int(11) != 0) SetMs(out.mutable_decide_time(), row.Int(11));
  out.set_attempts(static_cast<int32_t>(row.Int(12)));
  return out;
}

absl::Status NoMessage(const std::string& id) {
  return WithReason(absl::NotFoundError(absl::StrCat("there is no message messages/", id)), "MESSAGE_NOT_FOUND");
}

v1::Ticket ToTicket(const sql::Row& row) {
  v1::Ticket ticket;
  ticket.set_name("tickets/" + row.Text(0));
  ticket.set_mailbox("mailboxes/" + row.Text(1));
  ticket.set_subject(row.Text(2));
  SetMs(ticket.mutable_create_time(), row.Int(3));
  SetMs(ticket.mutable_update_time(), row.Int(4));
  ticket.set_message_count(row.Int(5));
  return ticket;
}

v1::QuarantinedMessage ToQuarantined(const sql::Row& row, const sql::Result& stored) {
  v1::QuarantinedMessage out;
  out.set_name("messages/" + row.Text(0));
  const bool undecodable = row.Text(1) != "quarantined";
  out.set_kind(undecodable ? v1::QuarantinedMessage::KIND_UNDECODABLE : v1::QuarantinedMessage::KIND_QUARANTINED);
  out.set_reason(row.Text(2));
  out.set_mailbox("mailboxes/" + row.Text(3));
  v1::ServerIdentity* identity = out.mutable_server_identity();
  identity->set_connection_generation(row.Int(4));
  identity->set_folder(row.Text(5));
  identity->set_uid_validity(static_cast<uint32_t>(row.Int(6)));
  identity->set_uid(static_cast<uint32_t>(row.Int(7)));
  if (!row.IsNull(8)) out.set_ticket("tickets/" + row.Text(8));
  out.set_raw_stored(!row.IsNull(9));
  SetMs(out.mutable_create_time(), row.Int(10));
  v1::Message content;
  if (!stored.rows.empty() && content.ParseFromString(stored.rows[0].Text(0))) {
    out.set_subject(content.subject());
    *out.mutable_from() = content.from();
    if (undecodable) out.set_reason(content.undecodable_reason());
  }
  return out;
}

// The newest possible key, so that the first page needs no query of its own.
LedgerQueries::After StartOf(const std::optional<LedgerQueries::After>& after) {
  LedgerQueries::After newest;
  newest.time = std::numeric_limits<int64_t>::max();
  return after.value_or(newest);
}

}  // namespace

void SetMs(google::protobuf::Timestamp* out, int64_t ms) {
  out->set_seconds(ms / 1000);
  out->set_nanos(static_cast<int32_t>(ms % 1000 * 1000000));
}

int64_t ToMs(const google::protobuf::Timestamp& time) { return time.seconds() * 1000 + time.nanos() / 1000000; }

async::Task<absl::StatusOr<LedgerQueries::StoredMessage>> LedgerQueries::GetMessage(std::string message_id) {
  StoredMessage out;
  sql::Work work = [&](sql::Transaction& tx) -> async::Task<absl::Status> {
    Params id{message_id};
    PS_CO_ASSIGN_OR_RETURN(sql::Result row, co_await tx.Execute(kOutcomeById, id));
    if (row.rows.empty()) co_return NoMessage(message_id);
    out.outcome = ToOutcome(row.rows[0]);
    PS_CO_ASSIGN_OR_RETURN(sql::Result content, co_await tx.Execute(kContentById, id));
    if (!content.rows.empty() && !out.message.ParseFromString(content.rows[0].Text(0))) {
      co_return absl::DataLossError(absl::StrCat("the stored content of messages/", message_id, " is damaged"));
    }
    out.message.set_name("messages/" + message_id);
    out.message.set_mailbox(out.outcome.mailbox());
    *out.message.mutable_server_identity() = out.outcome.server_identity();
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return out;
}

async::Task<absl::StatusOr<std::vector<v1::Outcome>>> LedgerQueries::OutcomesOf(MailboxKey mailbox,
                                                                                std::string internet_message_id) {
  std::vector<v1::Outcome> out;
  sql::Work work = [&](sql::Transaction& tx) -> async::Task<absl::Status> {
    Params params{mailbox.key, IndexKey(internet_message_id), int64_t{kMaxOutcomes}};
    PS_CO_ASSIGN_OR_RETURN(sql::Result rows, co_await tx.Execute(kOutcomeByInternetId, std::move(params)));
    out.clear();
    for (const sql::Row& row : rows.rows) out.push_back(ToOutcome(row));
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return out;
}

async::Task<absl::StatusOr<std::optional<v1::Outcome>>> LedgerQueries::OutcomeOf(FolderKey folder,
                                                                                 uint32_t uid_validity, uint32_t uid) {
  std::optional<v1::Outcome> out;
  sql::Work work = [&](sql::Transaction& tx) -> async::Task<absl::Status> {
    Params params{folder.mailbox.key, folder.generation, folder.folder, int64_t{uid_validity}, int64_t{uid}};
    PS_CO_ASSIGN_OR_RETURN(sql::Result rows, co_await tx.Execute(kOutcomeByIdentity, std::move(params)));
    if (!rows.rows.empty()) out = ToOutcome(rows.rows[0]);
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return out;
}

async::Task<absl::StatusOr<std::vector<v1::Ticket>>> LedgerQueries::ListTickets(std::string mailbox_id,
                                                                                std::optional<After> after, int limit) {
  std::vector<v1::Ticket> out;
  sql::Work work = [&](sql::Transaction& tx) -> async::Task<absl::Status> {
    const After from = StartOf(after);
    Params params{mailbox_id, from.time, from.id, int64_t{limit}};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result rows,
        co_await tx.Execute(
            "SELECT ticket_id, mailbox_id, subject, create_time, update_time, message_count FROM ticket "
            "WHERE ($1 = '' OR mailbox_id = $1) AND (create_time < $2 OR (create_time = $2 AND ticket_id "
            "< $3)) ORDER BY create_time DESC, ticket_id DESC LIMIT $4",
            std::move(params)));
    out.clear();
    for (const sql::Row& row : rows.rows) out.push_back(ToTicket(row));
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return out;
}

async::Task<absl::StatusOr<v1::Ticket>> LedgerQueries::GetTicket(std::string ticket_id) {
  v1::Ticket ticket;
  sql::Work work = [&](sql::Transaction& tx) -> async::Task<absl::Status> {
    Params id{ticket_id};
    PS_CO_ASSIGN_OR_RETURN(sql::Result row,
                           co_await tx.Execute("SELECT ticket_id, mailbox_id, subject, create_time, update_time, "
                                               "message_count FROM ticket WHERE ticket_id = $1",
                                               id));
    if (row.rows.empty()) {
      co_return WithReason(absl::NotFoundError(absl::StrCat("there is no ticket tickets/", ticket_id)),
                           "TICKET_NOT_FOUND");
    }
    ticket = ToTicket(row.rows[0]);
    Params limited{ticket_id, int64_t{kMaxTicketMessages}};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result messages,
        co_await tx.Execute("SELECT message_id FROM ticket_message WHERE ticket_id = $1 ORDER BY ordinal "
                            "LIMIT $2",
                            limited));
    for (const sql::Row& m : messages.rows) ticket.add_messages("messages/" + m.Text(0));
    PS_CO_ASSIGN_OR_RETURN(sql::Result people,
                           co_await tx.Execute("SELECT address FROM ticket_participant WHERE ticket_id = $1 ORDER BY "
                                               "address LIMIT $2",
                                               limited));
    for (const sql::Row& p : people.rows) ticket.add_participants(p.Text(0));
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return ticket;
}

async::Task<absl::StatusOr<std::vector<v1::QuarantinedMessage>>> LedgerQueries::ListQuarantined(
    std::string mailbox_id, std::optional<After> after, int limit) {
  std::vector<v1::QuarantinedMessage> out;
  sql::Work work = [&](sql::Transaction& tx) -> async::Task<absl::Status> {
    const After from = StartOf(after);
    Params params{mailbox_id, from.time, from.id, int64_t{limit}};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result rows,
        co_await tx.Execute(
            "SELECT m.message_id, m.state, m.reason, m.mailbox_id, m.generation, m.folder, m.uid_validity, "
            "m.uid, m.ticket_id, m.raw_sha256, m.decide_time FROM message m WHERE (m.state = 'quarantined' OR "
            "m.undecodable = 1) AND ($1 = '' OR m.mailbox_id = $1) AND (m.decide_time < $2 OR "
            "(m.decide_time = $2 AND m.message_id < $3)) ORDER BY m.decide_time DESC, m.message_id DESC "
            "LIMIT $4",
            std::move(params)));
    out.clear();
    // Contents one by one: together they may be gigabytes, and little of each is kept.
    for (const sql::Row& row : rows.rows) {
      Params id{row.Text(0)};
      PS_CO_ASSIGN_OR_RETURN(sql::Result content, co_await tx.Execute(kContentById, std::move(id)));
      out.push_back(ToQuarantined(row, content));
    }
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return out;
}

async::Task<absl::StatusOr<v1::QuarantinedMessage>> LedgerQueries::GetQuarantined(std::string message_id) {
  v1::QuarantinedMessage out;
  sql::Work work = [&](sql::Transaction& tx) -> async::Task<absl::Status> {
    Params params{message_id};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result rows,
        co_await tx.Execute(
            "SELECT m.message_id, m.state, m.reason, m.mailbox_id, m.generation, m.folder, m.uid_validity, "
            "m.uid, m.ticket_id, m.raw_sha256, m.decide_time FROM message m WHERE m.message_id = $1 AND (m.state = "
            "'quarantined' OR m.undecodable = 1)",
            params));
    if (rows.rows.empty()) co_return NoMessage(message_id);
    PS_CO_ASSIGN_OR_RETURN(sql::Result content, co_await tx.Execute(kContentById, std::move(params)));
    out = ToQuarantined(rows.rows[0], content);
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return out;
}

async::Task<absl::StatusOr<LedgerQueries::RawInfo>> LedgerQueries::FindRaw(std::string message_id) {
  RawInfo info;
  sql::Work work = [&](sql::Transaction& tx) -> async::Task<absl::Status> {
    Params params{message_id};
    PS_CO_ASSIGN_OR_RETURN(sql::Result row, co_await tx.Execute("SELECT raw_sha256 FROM message WHERE message_id = $1",
                                                                std::move(params)));
    if (row.rows.empty()) co_return NoMessage(message_id);
    if (row.rows[0].IsNull(0)) {
      co_return WithReason(
          absl::NotFoundError("the bytes of this message are not stored here; it stays on the mail server"),
          "RAW_NOT_STORED");
    }
    info.sha256 = row.rows[0].Text(0);
    PS_CO_ASSIGN_OR_RETURN(blob::BlobInfo stored, co_await blob::Stat(tx, info.sha256));
    info.size = stored.size;
    info.chunks = static_cast<int>(stored.chunks);
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return info;
}

async::Task<absl::StatusOr<std::string>> LedgerQueries::ReadRawChunk(std::string sha256, int index) {
  std::string bytes;
  sql::Work work = [&](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_ASSIGN_OR_RETURN(bytes, co_await raw_.ReadChunk(tx, sha256, index));
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return bytes;
}

}  // namespace poststelle::fetcher
