#include "services/config/mailbox_rows.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "libs/base/ids.h"
#include "libs/base/reason.h"
#include "libs/base/status_macros.h"
#include "libs/sql/insert.h"
#include "services/config/key_state.h"
#include "services/config/mailbox_references.h"
#include "services/config/mailbox_validator.h"

namespace poststelle::config {
namespace {

using google::protobuf::util::TimeUtil;
using Params = std::vector<sql::Value>;

constexpr int64_t kIndexedAtOnce = 500;

async::Task<absl::Status> LogChange(sql::Transaction& tx, const std::string& id, int64_t history) {
  // Never behind the log: a program of before the counter, run for a while in between, leaves the counter alone.
  PS_CO_ASSIGN_OR_RETURN(
      sql::Result next,
      co_await tx.Execute(
          "UPDATE change_counter SET revision = 1 + CASE WHEN revision < (SELECT COALESCE(MAX(revision), "
          "0) FROM mailbox_change) THEN (SELECT MAX(revision) FROM mailbox_change) ELSE revision END "
          "WHERE id = 1 RETURNING revision"));
  if (next.rows.empty()) co_return absl::DataLossError("the counter of changes is missing");
  const int64_t revision = next.rows[0].Int(0);
  Params params{revision, id};
  PS_CO_RETURN_IF_ERROR(
      (co_await tx.Execute("INSERT INTO mailbox_change (revision, mailbox_id) VALUES ($1, $2)", std::move(params)))
          .status());
  // The newest one always stays: readers take the present revision from the log.
  Params keep{revision - std::max<int64_t>(history, 1)};
  co_return (co_await tx.Execute("DELETE FROM mailbox_change WHERE revision <= $1", std::move(keep))).status();
}

// What a person may type to find it.
std::string SearchText(const v1::Mailbox& mailbox) {
  return NameKey(absl::StrCat(mailbox.display_name(), "\n", mailbox.address(), "\n",
                              mailbox.password_authentication().login_name(), "\n", mailbox.connection().host()));
}

// Columns and rows that are derived from the definition.
async::Task<absl::Status> WriteDerived(sql::Transaction& tx, const v1::Mailbox& mailbox) {
  static const sql::RowInsert kLabel("INSERT INTO mailbox_label (mailbox_id, label_key, label_value) VALUES", 3);
  static const sql::RowInsert kReference("INSERT INTO mailbox_reference (mailbox_id, field, target) VALUES", 3,
                                         "ON CONFLICT DO NOTHING");
  const std::string id = IdOf(mailbox);
  std::vector<sql::Statement> statements;
  statements.push_back(
      {"UPDATE mailbox SET direction = $2, enabled = $3, address_key = $4, search_text = $5, "
       "create_time = $6, update_time = $7 WHERE mailbox_id = $1",
       {id, int64_t{mailbox.direction()}, int64_t{mailbox.enabled()}, NameKey(mailbox.address()), SearchText(mailbox),
        TimeUtil::TimestampToMicroseconds(mailbox.create_time()),
        TimeUtil::TimestampToMicroseconds(mailbox.update_time())}});
  statements.push_back({"DELETE FROM mailbox_label WHERE mailbox_id = $1", {id}});
  statements.push_back({"DELETE FROM mailbox_reference WHERE mailbox_id = $1", {id}});
  std::vector<Params> labels, references;
  for (const auto& [key, value] : mailbox.labels()) labels.push_back({id, key, value});
  for (Reference& reference : ReferencesOf(mailbox)) references.push_back({id, reference.field, reference.target});
  kLabel.Append(std::move(labels), statements);
  kReference.Append(std::move(references), statements);
  co_return (co_await tx.ExecuteAll(std::move(statements))).status();
}

}  // namespace

std::string IdOf(const v1::Mailbox& mailbox) { return mailbox.name().substr(mailbox.name().rfind('/') + 1); }

std::string LikePattern(const std::string& text) {
  std::string out = "%";
  for (char c : text) {
    if (c == '%' || c == '_' || c == '\\') out += '\\';
    out += c;
  }
  return out + "%";
}

const std::string& LoginName(const v1::Mailbox& mailbox) {
  const std::string& login = mailbox.password_authentication().login_name();
  return login.empty() ? mailbox.address() : login;
}

absl::Status MailboxNotFound(const std::string& id) {
  return WithReason(absl::NotFoundError(absl::StrCat("there is no mailbox mailboxes/", id)), "MAILBOX_NOT_FOUND");
}

absl::Status EtagMismatch(const std::string& name) {
  return WithReason(absl::AbortedError(absl::StrCat(name, " was changed meanwhile; read it again")), "ETAG_MISMATCH");
}

async::Task<absl::Status> TakeTurn(sql::Transaction& tx) {
  co_return (co_await tx.Execute("SELECT id FROM config_epoch FOR UPDATE")).status();
}

sql::Statement SelectMailbox(std::string id) {
  return {"SELECT definition, sealed_password FROM mailbox WHERE mailbox_id = $1", {std::move(id)}};
}

absl::StatusOr<std::optional<StoredMailbox>> ToMailbox(const sql::Result& found) {
  if (found.rows.empty()) return std::nullopt;
  StoredMailbox out;
  if (!out.mailbox.ParseFromString(found.rows[0].Text(0))) return absl::DataLossError("a stored mailbox is damaged");
  out.sealed_password = found.rows[0].Text(1);
  return out;
}

async::Task<absl::StatusOr<std::optional<StoredMailbox>>> ReadMailbox(sql::Transaction& tx, std::string id) {
  sql::Statement select = SelectMailbox(std::move(id));
  PS_CO_ASSIGN_OR_RETURN(sql::Result found, co_await tx.Execute(select.sql, std::move(select.params)));
  co_return ToMailbox(found);
}

async::Task<absl::Status> WriteMailbox(sql::Transaction& tx, StoredMailbox& stored, int64_t history) {
  v1::Mailbox& mailbox = stored.mailbox;
  PS_CO_RETURN_IF_ERROR(co_await CheckKeyNotRetired(tx, stored.sealed_password));
  *mailbox.mutable_update_time() = TimeUtil::MicrosecondsToTimestamp(absl::ToUnixMicros(absl::Now()));
  if (!mailbox.has_create_time()) *mailbox.mutable_create_time() = mailbox.update_time();
  mailbox.set_etag(absl::StrCat("\"", RandomId(), "\""));
  mailbox.clear_warnings();
  if (mailbox.has_password_authentication()) {
    mailbox.mutable_password_authentication()->clear_password();
    mailbox.mutable_password_authentication()->set_password_set(!stored.sealed_password.empty());
  }
  Params params{IdOf(mailbox), NameKey(mailbox.display_name()), sql::Blob{mailbox.SerializeAsString()},
                sql::Blob{stored.sealed_password}, mailbox.etag()};
  PS_CO_RETURN_IF_ERROR(
      (co_await tx.Execute(
           "INSERT INTO mailbox (mailbox_id, name_key, definition, sealed_password, etag) VALUES ($1, $2, "
           "$3, $4, $5) ON CONFLICT (mailbox_id) DO UPDATE SET name_key = excluded.name_key, definition "
           "= excluded.definition, sealed_password = excluded.sealed_password, etag = excluded.etag",
           std::move(params)))
          .status());
  PS_CO_RETURN_IF_ERROR(co_await WriteDerived(tx, mailbox));
  co_return co_await LogChange(tx, IdOf(mailbox), history);
}

async::Task<absl::Status> EraseMailbox(sql::Transaction& tx, std::string id, int64_t history) {
  const Params params{id};
  std::vector<sql::Statement> statements{{"DELETE FROM mailbox WHERE mailbox_id = $1", params},
                                         {"DELETE FROM mailbox_label WHERE mailbox_id = $1", params},
                                         {"DELETE FROM mailbox_reference WHERE mailbox_id = $1", params},
                                         {"DELETE FROM create_request WHERE mailbox_id = $1", params}};
  PS_CO_RETURN_IF_ERROR((co_await tx.ExecuteAll(std::move(statements))).status());
  co_return co_await LogChange(tx, id, history);
}

async::Task<absl::Status> ReplaceInMailboxes(sql::Transaction& tx, std::vector<std::string> ids, std::string target,
                                             std::string replacement, int64_t history) {
  for (const std::string& id : ids) {
    PS_CO_ASSIGN_OR_RETURN(std::optional<StoredMailbox> user, co_await ReadMailbox(tx, id));
    if (!user) co_return absl::DataLossError(absl::StrCat("mailboxes/", id, " has references but no definition"));
    ReplaceReference(user->mailbox, target, replacement);
    PS_CO_RETURN_IF_ERROR(co_await WriteMailbox(tx, *user, history));
  }
  co_return absl::OkStatus();
}

async::Task<absl::Status> IndexMailboxes(sql::Database& database) {
  bool more = true;
  sql::Work work = [&more](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_RETURN_IF_ERROR(co_await TakeTurn(tx));
    Params params{kIndexedAtOnce};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result rows,
        co_await tx.Execute("SELECT definition FROM mailbox WHERE search_text IS NULL LIMIT $1", std::move(params)));
    for (const sql::Row& row : rows.rows) {
      v1::Mailbox mailbox;
      if (!mailbox.ParseFromString(row.Text(0))) co_return absl::DataLossError("a stored mailbox is damaged");
      PS_CO_RETURN_IF_ERROR(co_await WriteDerived(tx, mailbox));
    }
    more = static_cast<int64_t>(rows.rows.size()) == kIndexedAtOnce;
    co_return absl::OkStatus();
  };
  while (more) PS_CO_RETURN_IF_ERROR(co_await database.Write(work));
  co_return absl::OkStatus();
}

}  // namespace poststelle::config
