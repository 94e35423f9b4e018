#include "services/config/mailbox_store.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "libs/base/ids.h"
#include "libs/base/reason.h"
#include "libs/base/status_macros.h"
#include "services/config/key_state.h"
#include "services/config/mailbox_validator.h"

namespace poststelle::config {
namespace {

using Params = std::vector<sql::Value>;

constexpr int kChangesAtOnce = 500;

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

std::string IdOf(const v1::Mailbox& mailbox) { return mailbox.name().substr(mailbox.name().rfind('/') + 1); }

void SetNow(google::protobuf::Timestamp* out) {
  const int64_t micros = absl::ToUnixMicros(absl::Now());
  out->set_seconds(micros / 1'000'000);
  out->set_nanos(static_cast<int32_t>(micros % 1'000'000 * 1000));
}

absl::Status NotFound(const std::string& id) {
  return WithReason(absl::NotFoundError(absl::StrCat("there is no mailbox mailboxes/", id)), "MAILBOX_NOT_FOUND");
}

absl::Status EtagMismatch(const std::string& id) {
  return WithReason(absl::AbortedError(absl::StrCat("mailboxes/", id, " was changed meanwhile; read it again")),
                    "ETAG_MISMATCH");
}

async::Task<absl::StatusOr<std::optional<StoredMailbox>>> Read(sql::Transaction& tx, const std::string& id) {
  Params params{id};
  PS_CO_ASSIGN_OR_RETURN(
      sql::Result found,
      co_await tx.Execute("SELECT definition, sealed_password FROM mailbox WHERE mailbox_id = $1", std::move(params)));
  if (found.rows.empty()) co_return std::nullopt;
  StoredMailbox out;
  if (!out.mailbox.ParseFromString(found.rows[0].Text(0))) co_return absl::DataLossError("a stored mailbox is damaged");
  out.sealed_password = found.rows[0].Text(1);
  co_return out;
}

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

async::Task<absl::Status> CheckName(sql::Transaction& tx, const v1::Mailbox& mailbox) {
  Params params{NameKey(mailbox.display_name()), IdOf(mailbox)};
  PS_CO_ASSIGN_OR_RETURN(sql::Result taken,
                         co_await tx.Execute("SELECT mailbox_id FROM mailbox WHERE name_key = $1 AND mailbox_id <> $2",
                                             std::move(params)));
  if (taken.rows.empty()) co_return absl::OkStatus();
  co_return WithReason(
      absl::AlreadyExistsError(absl::StrCat("mailboxes/", taken.rows[0].Text(0), " is called \"",
                                            mailbox.display_name(), "\" already; choose another display_name")),
      "DISPLAY_NAME_TAKEN");
}

async::Task<absl::Status> Store(sql::Transaction& tx, StoredMailbox& stored) {
  v1::Mailbox& mailbox = stored.mailbox;
  PS_CO_RETURN_IF_ERROR(co_await CheckKeyNotRetired(tx, stored.sealed_password));
  SetNow(mailbox.mutable_update_time());
  mailbox.set_etag(absl::StrCat("\"", RandomId(), "\""));
  if (mailbox.has_password_authentication()) {
    mailbox.mutable_password_authentication()->clear_password();
    mailbox.mutable_password_authentication()->set_password_set(!stored.sealed_password.empty());
  }
  Params params{IdOf(mailbox), NameKey(mailbox.display_name()), sql::Blob{mailbox.SerializeAsString()},
                sql::Blob{stored.sealed_password}, mailbox.etag()};
  co_return (co_await tx.Execute(
                 "INSERT INTO mailbox (mailbox_id, name_key, definition, sealed_password, etag) VALUES ($1, $2, "
                 "$3, $4, $5) ON CONFLICT (mailbox_id) DO UPDATE SET name_key = excluded.name_key, definition "
                 "= excluded.definition, sealed_password = excluded.sealed_password, etag = excluded.etag",
                 std::move(params)))
      .status();
}

bool ConnectionChanged(const v1::Mailbox& a, const v1::Mailbox& b) {
  return a.connection().host() != b.connection().host() || a.connection().port() != b.connection().port() ||
         a.connection().protocol() != b.connection().protocol() || a.address() != b.address() ||
         a.password_authentication().login_name() != b.password_authentication().login_name();
}

}  // namespace

std::vector<sql::Migration> ConfigMigrations() {
  return {{1, "mailboxes", kSchema},
          {2, "counter of changes, keyed request hashes", kCounter},
          {3, "states of keys", kKeyStateSchema}};
}

// Revisions have no gaps because changes take turns: a watcher who has seen a revision has seen all before it.
async::Task<absl::Status> TakeTurn(sql::Transaction& tx) {
  co_return (co_await tx.Execute("SELECT id FROM config_epoch FOR UPDATE")).status();
}

async::Task<absl::StatusOr<std::string>> MailboxStore::Epoch() {
  std::string epoch;
  sql::Work work = [&epoch](sql::Transaction& tx) -> async::Task<absl::Status> {
    Params fresh{RandomId()};
    PS_CO_RETURN_IF_ERROR(
        (co_await tx.Execute("INSERT INTO config_epoch (id, epoch) VALUES (1, $1) ON CONFLICT DO NOTHING",
                             std::move(fresh)))
            .status());
    PS_CO_ASSIGN_OR_RETURN(sql::Result row, co_await tx.Execute("SELECT epoch FROM config_epoch"));
    epoch = row.rows[0].Text(0);
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Write(work));
  co_return epoch;
}

async::Task<absl::StatusOr<v1::Mailbox>> MailboxStore::Create(StoredMailbox mailbox, RequestMark request) {
  v1::Mailbox out;
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_RETURN_IF_ERROR(co_await TakeTurn(tx));
    if (!request.id.empty()) {
      Params params{request.id};
      PS_CO_ASSIGN_OR_RETURN(
          sql::Result seen,
          co_await tx.Execute("SELECT request_hash, mailbox_id FROM create_request WHERE request_id = $1",
                              std::move(params)));
      if (!seen.rows.empty()) {
        const absl::Status same = request.is_same(seen.rows[0].Text(0));
        if (absl::IsNotFound(same)) {
          co_return WithReason(absl::InvalidArgumentError(absl::StrCat(
                                   "request_id made mailboxes/", seen.rows[0].Text(1),
                                   " already; whether by the same request can't be told any more, because the key of "
                                   "then is gone. If that mailbox is not yours, choose a new request_id")),
                               "REQUEST_ID_REUSED");
        }
        if (!same.ok()) {
          co_return WithReason(absl::InvalidArgumentError("request_id was used for another request; choose a new one"),
                               "REQUEST_ID_REUSED");
        }
        PS_CO_ASSIGN_OR_RETURN(std::optional<StoredMailbox> earlier, co_await Read(tx, seen.rows[0].Text(1)));
        if (!earlier) co_return NotFound(seen.rows[0].Text(1));
        out = earlier->mailbox;
        co_return absl::OkStatus();
      }
    }
    const std::string id = IdOf(mailbox.mailbox);
    PS_CO_ASSIGN_OR_RETURN(std::optional<StoredMailbox> there, co_await Read(tx, id));
    if (there) {
      co_return WithReason(absl::AlreadyExistsError(absl::StrCat("mailboxes/", id, " exists already")),
                           "MAILBOX_EXISTS");
    }
    PS_CO_RETURN_IF_ERROR(co_await CheckName(tx, mailbox.mailbox));
    StoredMailbox fresh = mailbox;
    SetNow(fresh.mailbox.mutable_create_time());
    fresh.mailbox.set_connection_generation(1);
    fresh.mailbox.set_enable_generation(1);
    PS_CO_RETURN_IF_ERROR(co_await Store(tx, fresh));
    out = fresh.mailbox;
    if (!request.id.empty()) {
      Params params{request.id, request.hash, id};
      PS_CO_RETURN_IF_ERROR(
          (co_await tx.Execute("INSERT INTO create_request (request_id, request_hash, mailbox_id) VALUES ($1, $2, $3)",
                               std::move(params)))
              .status());
    }
    co_return co_await LogChange(tx, id, history_);
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Write(work));
  co_return out;
}

async::Task<absl::StatusOr<StoredMailbox>> MailboxStore::Get(std::string id) {
  StoredMailbox out;
  sql::Work work = [&](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_ASSIGN_OR_RETURN(std::optional<StoredMailbox> found, co_await Read(tx, id));
    if (!found) co_return NotFound(id);
    out = *std::move(found);
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return out;
}

async::Task<absl::StatusOr<std::vector<v1::Mailbox>>> MailboxStore::List(std::string after, int limit) {
  std::vector<v1::Mailbox> out;
  sql::Work work = [&](sql::Transaction& tx) -> async::Task<absl::Status> {
    Params params{after, int64_t{limit}};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result rows,
        co_await tx.Execute("SELECT definition FROM mailbox WHERE name_key > $1 ORDER BY name_key LIMIT $2",
                            std::move(params)));
    out.clear();
    for (const sql::Row& row : rows.rows) {
      if (!out.emplace_back().ParseFromString(row.Text(0)))
        co_return absl::DataLossError("a stored mailbox is damaged");
    }
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return out;
}

async::Task<absl::StatusOr<v1::Mailbox>> MailboxStore::Update(StoredMailbox mailbox, std::string expected_etag) {
  v1::Mailbox out;
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_RETURN_IF_ERROR(co_await TakeTurn(tx));
    const std::string id = IdOf(mailbox.mailbox);
    PS_CO_ASSIGN_OR_RETURN(std::optional<StoredMailbox> before, co_await Read(tx, id));
    if (!before) co_return NotFound(id);
    if (before->mailbox.etag() != expected_etag) co_return EtagMismatch(id);
    PS_CO_RETURN_IF_ERROR(co_await CheckName(tx, mailbox.mailbox));
    StoredMailbox next = mailbox;
    if (next.sealed_password.empty()) next.sealed_password = before->sealed_password;
    const v1::Mailbox& old = before->mailbox;
    next.mailbox.set_connection_generation(old.connection_generation() +
                                           (ConnectionChanged(old, next.mailbox) ? 1 : 0));
    next.mailbox.set_enable_generation(old.enable_generation() + (!old.enabled() && next.mailbox.enabled() ? 1 : 0));
    PS_CO_RETURN_IF_ERROR(co_await Store(tx, next));
    out = next.mailbox;
    co_return co_await LogChange(tx, id, history_);
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Write(work));
  co_return out;
}

async::Task<absl::Status> MailboxStore::Delete(std::string id, std::string expected_etag) {
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_RETURN_IF_ERROR(co_await TakeTurn(tx));
    PS_CO_ASSIGN_OR_RETURN(std::optional<StoredMailbox> before, co_await Read(tx, id));
    if (!before) co_return NotFound(id);
    if (!expected_etag.empty() && before->mailbox.etag() != expected_etag) co_return EtagMismatch(id);
    Params params{id};
    PS_CO_RETURN_IF_ERROR((co_await tx.Execute("DELETE FROM mailbox WHERE mailbox_id = $1", params)).status());
    PS_CO_RETURN_IF_ERROR((co_await tx.Execute("DELETE FROM create_request WHERE mailbox_id = $1", params)).status());
    co_return co_await LogChange(tx, id, history_);
  };
  co_return co_await database_.Write(work);
}

async::Task<absl::StatusOr<MailboxStore::Snapshot>> MailboxStore::ReadSnapshot() {
  Snapshot out;
  sql::Work work = [&out](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_ASSIGN_OR_RETURN(sql::Result revision,
                           co_await tx.Execute("SELECT COALESCE(MAX(revision), 0) FROM mailbox_change"));
    out.revision = revision.rows[0].Int(0);
    PS_CO_ASSIGN_OR_RETURN(sql::Result rows, co_await tx.Execute("SELECT definition FROM mailbox ORDER BY mailbox_id"));
    out.mailboxes.clear();
    for (const sql::Row& row : rows.rows) {
      if (!out.mailboxes.emplace_back().ParseFromString(row.Text(0)))
        co_return absl::DataLossError("a stored mailbox is damaged");
    }
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return out;
}

async::Task<absl::StatusOr<std::vector<Change>>> MailboxStore::ReadChanges(int64_t revision) {
  std::vector<Change> out;
  sql::Work work = [&](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_ASSIGN_OR_RETURN(sql::Result bounds,
                           co_await tx.Execute("SELECT COALESCE(MIN(revision), 1), COALESCE(MAX(revision), 0) FROM "
                                               "mailbox_change"));
    if (revision + 1 < bounds.rows[0].Int(0) || revision > bounds.rows[0].Int(1)) {
      co_return WithReason(
          absl::OutOfRangeError("the changes since this token are no longer kept; watch without a token"),
          "REVISION_COMPACTED");
    }
    Params params{revision, int64_t{kChangesAtOnce}};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result rows,
        co_await tx.Execute("SELECT c.revision, c.mailbox_id, m.definition FROM mailbox_change c LEFT JOIN "
                            "mailbox m ON m.mailbox_id = c.mailbox_id WHERE c.revision > $1 ORDER BY "
                            "c.revision LIMIT $2",
                            std::move(params)));
    out.clear();
    for (const sql::Row& row : rows.rows) {
      Change change;
      change.revision = row.Int(0);
      change.mailbox_id = row.Text(1);
      if (!row.IsNull(2) && !change.mailbox.emplace().ParseFromString(row.Text(2))) {
        co_return absl::DataLossError("a stored mailbox is damaged");
      }
      out.push_back(std::move(change));
    }
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return out;
}

}  // namespace poststelle::config
