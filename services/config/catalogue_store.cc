#include "services/config/catalogue_store.h"

#include <google/protobuf/util/time_util.h>

#include <map>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "libs/base/ids.h"
#include "libs/base/reason.h"
#include "libs/base/status_macros.h"
#include "libs/base/sv.h"
#include "poststelle/config/v1/label_service.pb.h"
#include "services/config/mailbox_references.h"
#include "services/config/mailbox_validator.h"

namespace poststelle::config {
namespace {

using google::protobuf::util::TimeUtil;
using Params = std::vector<sql::Value>;

constexpr const char* kPalette[] = {"#1e88e5", "#43a047", "#fb8c00", "#8e24aa", "#e53935", "#00897b",
                                    "#6d4c41", "#3949ab", "#c0ca33", "#d81b60", "#546e7a", "#039be5"};

// Both catalogues store the message of a label, which has the same fields.
std::string Serialised(const CatalogueEntry& entry) {
  v1::Label out;
  out.set_german_name(entry.german);
  out.set_english_name(entry.english);
  out.set_color(entry.color);
  *out.mutable_create_time() = TimeUtil::MicrosecondsToTimestamp(entry.create_time);
  *out.mutable_update_time() = TimeUtil::MicrosecondsToTimestamp(entry.update_time);
  return out.SerializeAsString();
}

// A row of: entry_id, definition, etag.
absl::StatusOr<CatalogueEntry> ToEntry(const sql::Row& row) {
  v1::Label stored;
  if (!stored.ParseFromString(row.Text(1))) return absl::DataLossError("a stored catalogue entry is damaged");
  CatalogueEntry out;
  out.id = row.Text(0);
  out.german = stored.german_name();
  out.english = stored.english_name();
  out.color = stored.color();
  out.create_time = TimeUtil::TimestampToMicroseconds(stored.create_time());
  out.update_time = TimeUtil::TimestampToMicroseconds(stored.update_time());
  out.etag = row.Text(2);
  return out;
}

}  // namespace

const Catalogue& TicketStatuses() {
  static const Catalogue kStatuses{"ticketStatuses",
                                   "TICKET_STATUS",
                                   {{"new", "Neu", "New", "#1e88e5"},
                                    {"open", "Offen", "Open", "#43a047"},
                                    {"in-progress", "In Bearbeitung", "In progress", "#fb8c00"},
                                    {"waiting-for-customer", "Wartet auf Kunden", "Waiting for customer", "#8e24aa"},
                                    {"waiting-for-others", "Wartet auf Dritte", "Waiting for others", "#546e7a"},
                                    {"resolved", "Gelöst", "Resolved", "#00897b"},
                                    {"closed", "Geschlossen", "Closed", "#6d4c41"}}};
  return kStatuses;
}

const Catalogue& Labels() {
  static const Catalogue kLabels{"labels",
                                 "LABEL",
                                 {{"inquiry", "Anfrage", "Inquiry", "#1e88e5"},
                                  {"incident", "Störung", "Incident", "#e53935"},
                                  {"order", "Bestellung", "Order", "#43a047"},
                                  {"invoice", "Rechnung", "Invoice", "#fb8c00"},
                                  {"complaint", "Reklamation", "Complaint", "#8e24aa"},
                                  {"return", "Rücksendung", "Return", "#00897b"}}};
  return kLabels;
}

std::string CatalogueStore::NameOf(const std::string& id) const {
  return absl::StrCat(Av(catalogue_.collection), "/", id);
}

absl::Status CatalogueStore::NotFound(const std::string& id) const {
  return WithReason(absl::NotFoundError(absl::StrCat("there is no ", NameOf(id))),
                    absl::StrCat(Av(catalogue_.reason), "_NOT_FOUND"));
}

async::Task<absl::StatusOr<std::optional<CatalogueEntry>>> CatalogueStore::Read(sql::Transaction& tx,
                                                                                std::string id) const {
  Params params{std::string(catalogue_.collection), std::move(id)};
  PS_CO_ASSIGN_OR_RETURN(sql::Result found,
                         co_await tx.Execute("SELECT entry_id, definition, etag FROM catalogue_entry WHERE collection "
                                             "= $1 AND entry_id = $2",
                                             std::move(params)));
  if (found.rows.empty()) co_return std::nullopt;
  PS_CO_ASSIGN_OR_RETURN(CatalogueEntry entry, ToEntry(found.rows[0]));
  co_return entry;
}

async::Task<absl::Status> CatalogueStore::CheckNames(sql::Transaction& tx, const CatalogueEntry& entry) const {
  Params params{std::string(catalogue_.collection), entry.id, NameKey(entry.german), NameKey(entry.english)};
  PS_CO_ASSIGN_OR_RETURN(
      sql::Result taken,
      co_await tx.Execute(
          "SELECT entry_id, german_key FROM catalogue_entry WHERE collection = $1 AND entry_id <> $2 AND "
          "(german_key = $3 OR english_key = $4) ORDER BY entry_id",
          std::move(params)));
  if (taken.rows.empty()) co_return absl::OkStatus();
  const bool german = taken.rows[0].Text(1) == NameKey(entry.german);
  co_return WithReason(
      absl::AlreadyExistsError(absl::StrCat(NameOf(taken.rows[0].Text(0)), " has the ", german ? "German" : "English",
                                            " name \"", german ? entry.german : entry.english, "\" already")),
      "NAME_TAKEN");
}

async::Task<absl::Status> CatalogueStore::Write(sql::Transaction& tx, CatalogueEntry& entry) const {
  entry.update_time = absl::ToUnixMicros(absl::Now());
  if (entry.create_time == 0) entry.create_time = entry.update_time;
  entry.etag = absl::StrCat("\"", RandomId(), "\"");
  Params params{std::string(catalogue_.collection), entry.id,  NameKey(entry.german), NameKey(entry.english),
                sql::Blob{Serialised(entry)},       entry.etag};
  co_return (co_await tx.Execute(
                 "INSERT INTO catalogue_entry (collection, entry_id, german_key, english_key, definition, etag) VALUES "
                 "($1, $2, $3, $4, $5, $6) ON CONFLICT (collection, entry_id) DO UPDATE SET german_key = "
                 "excluded.german_key, english_key = excluded.english_key, definition = excluded.definition, etag = "
                 "excluded.etag",
                 std::move(params)))
      .status();
}

async::Task<absl::StatusOr<std::string>> CatalogueStore::RareColor(sql::Transaction& tx) const {
  Params params{std::string(catalogue_.collection)};
  PS_CO_ASSIGN_OR_RETURN(
      sql::Result rows,
      co_await tx.Execute("SELECT entry_id, definition, etag FROM catalogue_entry WHERE collection = $1", params));
  std::map<std::string, int> used;
  for (const sql::Row& row : rows.rows) {
    PS_CO_ASSIGN_OR_RETURN(CatalogueEntry entry, ToEntry(row));
    ++used[entry.color];
  }
  std::string rarest = kPalette[0];
  for (const char* color : kPalette) {
    if (used[color] < used[rarest]) rarest = color;
  }
  co_return rarest;
}

async::Task<absl::Status> CatalogueStore::Seed() {
  sql::Work work = [this](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_RETURN_IF_ERROR(co_await TakeTurn(tx));
    Params params{std::string(catalogue_.collection)};
    PS_CO_ASSIGN_OR_RETURN(sql::Result fresh,
                           co_await tx.Execute("INSERT INTO catalogue_seeded (collection) VALUES ($1) ON CONFLICT DO "
                                               "NOTHING RETURNING collection",
                                               std::move(params)));
    if (fresh.rows.empty()) co_return absl::OkStatus();
    for (const Catalogue::Seed& seed : catalogue_.starting_set) {
      CatalogueEntry entry;
      entry.id = seed.id;
      entry.german = seed.german;
      entry.english = seed.english;
      entry.color = seed.color;
      PS_CO_RETURN_IF_ERROR(co_await Write(tx, entry));
    }
    co_return absl::OkStatus();
  };
  co_return co_await database_.Write(work);
}

async::Task<absl::StatusOr<CatalogueEntry>> CatalogueStore::Create(CatalogueEntry entry, std::string request_id,
                                                                   std::string request_hash, Commit commit) {
  CatalogueEntry out;
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_RETURN_IF_ERROR(co_await TakeTurn(tx));
    if (!request_id.empty()) {
      Params params{request_id};
      PS_CO_ASSIGN_OR_RETURN(
          sql::Result seen,
          co_await tx.Execute("SELECT request_hash, mailbox_id FROM create_request WHERE request_id = $1",
                              std::move(params)));
      if (!seen.rows.empty()) {
        if (seen.rows[0].Text(0) != request_hash) {
          co_return WithReason(absl::InvalidArgumentError("request_id was used for another request; choose a new one"),
                               "REQUEST_ID_REUSED");
        }
        const std::string& name = seen.rows[0].Text(1);
        const std::string id = name.substr(name.rfind('/') + 1);
        PS_CO_ASSIGN_OR_RETURN(std::optional<CatalogueEntry> earlier, co_await Read(tx, id));
        if (!earlier) co_return NotFound(id);
        out = *std::move(earlier);
        co_return absl::OkStatus();
      }
    }
    PS_CO_ASSIGN_OR_RETURN(std::optional<CatalogueEntry> there, co_await Read(tx, entry.id));
    if (there) {
      co_return WithReason(absl::AlreadyExistsError(NameOf(entry.id) + " exists already"),
                           absl::StrCat(Av(catalogue_.reason), "_EXISTS"));
    }
    PS_CO_RETURN_IF_ERROR(co_await CheckNames(tx, entry));
    out = entry;
    if (out.color.empty()) {
      PS_CO_ASSIGN_OR_RETURN(out.color, co_await RareColor(tx));
    }
    PS_CO_RETURN_IF_ERROR(co_await Write(tx, out));
    if (request_id.empty()) co_return absl::OkStatus();
    Params params{request_id, request_hash, NameOf(entry.id)};
    co_return (
        co_await tx.Execute("INSERT INTO create_request (request_id, request_hash, mailbox_id) VALUES ($1, $2, $3)",
                            std::move(params)))
        .status();
  };
  PS_CO_RETURN_IF_ERROR(co_await mailboxes_.Run(work, commit));
  co_return out;
}

async::Task<absl::StatusOr<CatalogueEntry>> CatalogueStore::Get(std::string id) {
  CatalogueEntry out;
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_ASSIGN_OR_RETURN(std::optional<CatalogueEntry> found, co_await Read(tx, id));
    if (!found) co_return NotFound(id);
    out = *std::move(found);
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return out;
}

async::Task<absl::StatusOr<std::vector<CatalogueEntry>>> CatalogueStore::List(std::string text, std::string after,
                                                                              int limit) {
  std::vector<CatalogueEntry> out;
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    Params params{std::string(catalogue_.collection), after, LikePattern(NameKey(text)), int64_t{limit}};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result rows,
        co_await tx.Execute(
            "SELECT entry_id, definition, etag FROM catalogue_entry WHERE collection = $1 AND german_key "
            "> $2 AND (german_key LIKE $3 ESCAPE '\\' OR english_key LIKE $3 ESCAPE '\\') ORDER BY "
            "german_key LIMIT $4",
            std::move(params)));
    out.clear();
    for (const sql::Row& row : rows.rows) {
      PS_CO_ASSIGN_OR_RETURN(CatalogueEntry entry, ToEntry(row));
      out.push_back(std::move(entry));
    }
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return out;
}

async::Task<absl::StatusOr<CatalogueEntry>> CatalogueStore::Update(CatalogueEntry entry, std::string expected_etag,
                                                                   Commit commit) {
  CatalogueEntry out;
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_RETURN_IF_ERROR(co_await TakeTurn(tx));
    PS_CO_ASSIGN_OR_RETURN(std::optional<CatalogueEntry> before, co_await Read(tx, entry.id));
    if (!before) co_return NotFound(entry.id);
    if (before->etag != expected_etag) co_return EtagMismatch(NameOf(entry.id));
    PS_CO_RETURN_IF_ERROR(co_await CheckNames(tx, entry));
    if (entry.german == before->german && entry.english == before->english && entry.color == before->color) {
      out = *std::move(before);
      co_return absl::OkStatus();
    }
    out = entry;
    out.create_time = before->create_time;
    co_return co_await Write(tx, out);
  };
  PS_CO_RETURN_IF_ERROR(co_await mailboxes_.Run(work, commit));
  co_return out;
}

async::Task<absl::Status> CatalogueStore::Delete(std::string id, std::string expected_etag, std::string replacement,
                                                 Commit commit) {
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_RETURN_IF_ERROR(co_await TakeTurn(tx));
    PS_CO_ASSIGN_OR_RETURN(std::optional<CatalogueEntry> before, co_await Read(tx, id));
    if (!before) co_return NotFound(id);
    if (!expected_etag.empty() && before->etag != expected_etag) co_return EtagMismatch(NameOf(id));
    if (!replacement.empty()) {
      PS_CO_ASSIGN_OR_RETURN(std::optional<CatalogueEntry> other, co_await Read(tx, replacement));
      if (!other) {
        const std::string what = absl::StrCat("names ", NameOf(replacement), ", which does not exist");
        co_return rpc::InvalidFieldsStatus({{"replacement", what}}, "REFERENCE_NOT_FOUND");
      }
    }
    PS_CO_ASSIGN_OR_RETURN(std::vector<std::string> users, co_await UsersOf(tx, NameOf(id), ""));
    if (!users.empty() && replacement.empty()) {
      co_return InUse(NameOf(id), users, absl::StrCat(Av(catalogue_.reason), "_IN_USE"),
                      "take it out of them first, or name a replacement");
    }
    if (!users.empty()) {
      PS_CO_RETURN_IF_ERROR(
          co_await ReplaceInMailboxes(tx, std::move(users), NameOf(id), NameOf(replacement), mailboxes_.history()));
    }
    Params params{std::string(catalogue_.collection), id};
    PS_CO_RETURN_IF_ERROR(
        (co_await tx.Execute("DELETE FROM catalogue_entry WHERE collection = $1 AND entry_id = $2", std::move(params)))
            .status());
    Params request{NameOf(id)};
    co_return (co_await tx.Execute("DELETE FROM create_request WHERE mailbox_id = $1", std::move(request))).status();
  };
  co_return co_await mailboxes_.Run(work, commit);
}

}  // namespace poststelle::config
