#include "services/config/mailbox_store.h"

#include <google/protobuf/util/message_differencer.h>
#include <google/protobuf/util/time_util.h>

#include <charconv>

#include "absl/strings/str_cat.h"
#include "libs/base/ids.h"
#include "libs/base/reason.h"
#include "libs/base/status_macros.h"
#include "services/config/mailbox_references.h"
#include "services/config/mailbox_validator.h"

namespace poststelle::config {
namespace {

using google::protobuf::util::TimeUtil;
using Params = std::vector<sql::Value>;
using Order = MailboxSelection::Order;

constexpr int kChangesAtOnce = 500;

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

// Whether an update to `next`, which keeps the password, changes nothing.
bool IsSame(const v1::Mailbox& stored, v1::Mailbox next) {
  next.set_etag(stored.etag());
  *next.mutable_update_time() = stored.update_time();
  next.clear_warnings();
  if (next.has_password_authentication()) {
    next.mutable_password_authentication()->clear_password();
    next.mutable_password_authentication()->set_password_set(stored.password_authentication().password_set());
  }
  return google::protobuf::util::MessageDifferencer::Equals(stored, next);
}

// The mailbox that an earlier create with this request id made, if there was one.
async::Task<absl::StatusOr<std::optional<v1::Mailbox>>> MadeEarlier(sql::Transaction& tx, const RequestMark& request) {
  if (request.id.empty()) co_return std::nullopt;
  Params params{request.id};
  PS_CO_ASSIGN_OR_RETURN(
      sql::Result seen, co_await tx.Execute("SELECT request_hash, mailbox_id FROM create_request WHERE request_id = $1",
                                            std::move(params)));
  if (seen.rows.empty()) co_return std::nullopt;
  const absl::Status same = request.is_same(seen.rows[0].Text(0));
  if (absl::IsNotFound(same)) {
    co_return WithReason(
        absl::InvalidArgumentError(absl::StrCat(
            "request_id made mailboxes/", seen.rows[0].Text(1),
            " already; whether by the same request can't be told any more, because the key of then is gone. If that "
            "mailbox is not yours, choose a new request_id")),
        "REQUEST_ID_REUSED");
  }
  if (!same.ok()) {
    co_return WithReason(absl::InvalidArgumentError("request_id was used for another request; choose a new one"),
                         "REQUEST_ID_REUSED");
  }
  PS_CO_ASSIGN_OR_RETURN(std::optional<StoredMailbox> earlier, co_await ReadMailbox(tx, seen.rows[0].Text(1)));
  if (!earlier) co_return MailboxNotFound(seen.rows[0].Text(1));
  co_return std::move(earlier->mailbox);
}

// Makes the mailbox `id` name `counterpart` as its counterpart.
async::Task<absl::Status> SetCounterpart(sql::Transaction& tx, std::string id, std::string counterpart,
                                         int64_t history) {
  PS_CO_ASSIGN_OR_RETURN(std::optional<StoredMailbox> other, co_await ReadMailbox(tx, id));
  if (!other) co_return MailboxNotFound(id);
  if (!other->mailbox.counterpart().empty()) {
    co_return WithReason(absl::AlreadyExistsError(absl::StrCat("mailboxes/", id, " has ", other->mailbox.counterpart(),
                                                               " as its counterpart already")),
                         "COUNTERPART_EXISTS");
  }
  other->mailbox.set_counterpart(counterpart);
  co_return co_await WriteMailbox(tx, *other, history);
}

std::string_view Column(Order order) {
  switch (order) {
    case Order::kAddress:
      return "address_key";
    case Order::kCreateTime:
      return "create_time";
    case Order::kUpdateTime:
      return "update_time";
    case Order::kDisplayName:
      break;
  }
  return "name_key";
}
bool ByTime(Order order) { return order == Order::kCreateTime || order == Order::kUpdateTime; }

// A list's statement. Its text has as many forms as a selection has; values are parameters always.
struct ListStatement {
  std::string sql;
  Params params;

  std::string Next(sql::Value value) {
    params.push_back(std::move(value));
    return absl::StrCat("$", params.size());
  }
};

ListStatement Select(const MailboxSelection& selection, const std::string& after, int limit) {
  ListStatement out;
  const std::string column(Column(selection.order));
  out.sql = "SELECT definition FROM mailbox WHERE 1 = 1";
  if (selection.direction != v1::Mailbox::DIRECTION_UNSPECIFIED) {
    absl::StrAppend(&out.sql, " AND direction = ", out.Next(int64_t{selection.direction}));
  }
  if (selection.enabled) absl::StrAppend(&out.sql, " AND enabled = ", out.Next(int64_t{*selection.enabled}));
  if (!selection.text.empty()) {
    absl::StrAppend(&out.sql, " AND search_text LIKE ", out.Next(LikePattern(NameKey(selection.text))), " ESCAPE '\\'");
  }
  for (const auto& [key, value] : selection.labels) {
    absl::StrAppend(&out.sql,
                    " AND mailbox_id IN (SELECT mailbox_id FROM mailbox_label WHERE label_key = ", out.Next(key));
    if (value) absl::StrAppend(&out.sql, " AND label_value = ", out.Next(*value));
    out.sql += ")";
  }
  if (const size_t split = after.rfind('\n'); split != std::string::npos) {
    const std::string key = after.substr(0, split);
    const std::string compare = selection.descending ? " < " : " > ";
    int64_t number = 0;
    std::from_chars(key.data(), key.data() + key.size(), number);
    const std::string from = out.Next(ByTime(selection.order) ? sql::Value(number) : sql::Value(key));
    const std::string id = out.Next(after.substr(split + 1));
    absl::StrAppend(&out.sql, " AND (", column, compare, from, " OR (", column, " = ", from, " AND mailbox_id", compare,
                    id, "))");
  }
  const char* direction = selection.descending ? " DESC" : "";
  absl::StrAppend(&out.sql, " ORDER BY ", column, direction, ", mailbox_id", direction, " LIMIT ",
                  out.Next(int64_t{limit}));
  return out;
}

}  // namespace

bool ConnectionChanged(const v1::Mailbox& a, const v1::Mailbox& b) {
  return a.connection().host() != b.connection().host() || a.connection().port() != b.connection().port() ||
         a.connection().protocol() != b.connection().protocol() || a.address() != b.address() ||
         LoginName(a) != LoginName(b);
}

std::string PositionOf(const v1::Mailbox& mailbox, const MailboxSelection& selection) {
  const std::string tail = "\n" + IdOf(mailbox);
  switch (selection.order) {
    case Order::kAddress:
      return NameKey(mailbox.address()) + tail;
    case Order::kCreateTime:
      return absl::StrCat(TimeUtil::TimestampToMicroseconds(mailbox.create_time()), tail);
    case Order::kUpdateTime:
      return absl::StrCat(TimeUtil::TimestampToMicroseconds(mailbox.update_time()), tail);
    case Order::kDisplayName:
      break;
  }
  return NameKey(mailbox.display_name()) + tail;
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

async::Task<absl::Status> MailboxStore::Run(sql::Work work, Commit commit) {
  if (commit == Commit::kYes) {
    absl::Status status = co_await database_.Write(std::move(work));
    if (status.ok() && on_commit_) on_commit_();
    co_return status;
  }
  bool good = false;
  sql::Work tried = [&work, &good](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_RETURN_IF_ERROR(co_await work(tx));
    good = true;
    co_return absl::CancelledError("only tried");  // rolls back
  };
  absl::Status status = co_await database_.Write(tried);
  co_return good ? absl::OkStatus() : status;
}

async::Task<absl::StatusOr<v1::Mailbox>> MailboxStore::Create(StoredMailbox mailbox, RequestMark request, Commit commit,
                                                              std::string counterpart_of) {
  v1::Mailbox out;
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_RETURN_IF_ERROR(co_await TakeTurn(tx));
    PS_CO_ASSIGN_OR_RETURN(std::optional<v1::Mailbox> earlier, co_await MadeEarlier(tx, request));
    if (earlier) {
      out = *std::move(earlier);
      co_return absl::OkStatus();
    }
    const std::string id = IdOf(mailbox.mailbox);
    PS_CO_ASSIGN_OR_RETURN(std::optional<StoredMailbox> there, co_await ReadMailbox(tx, id));
    if (there) {
      co_return WithReason(absl::AlreadyExistsError(absl::StrCat("mailboxes/", id, " exists already")),
                           "MAILBOX_EXISTS");
    }
    PS_CO_RETURN_IF_ERROR(co_await CheckName(tx, mailbox.mailbox));
    PS_CO_RETURN_IF_ERROR(co_await CheckReferences(tx, mailbox.mailbox));
    StoredMailbox fresh = mailbox;
    fresh.mailbox.clear_create_time();
    fresh.mailbox.set_connection_generation(1);
    fresh.mailbox.set_enable_generation(1);
    PS_CO_RETURN_IF_ERROR(co_await WriteMailbox(tx, fresh, history_));
    out = fresh.mailbox;
    if (!counterpart_of.empty()) {
      PS_CO_RETURN_IF_ERROR(co_await SetCounterpart(tx, counterpart_of, "mailboxes/" + id, history_));
    }
    if (request.id.empty()) co_return absl::OkStatus();
    Params params{request.id, request.hash, id};
    co_return (
        co_await tx.Execute("INSERT INTO create_request (request_id, request_hash, mailbox_id) VALUES ($1, $2, $3)",
                            std::move(params)))
        .status();
  };
  PS_CO_RETURN_IF_ERROR(co_await Run(work, commit));
  co_return out;
}

async::Task<absl::StatusOr<StoredMailbox>> MailboxStore::Get(std::string id) {
  PS_CO_ASSIGN_OR_RETURN(sql::Result rows, co_await database_.ReadOne(SelectMailbox(id)));
  PS_CO_ASSIGN_OR_RETURN(std::optional<StoredMailbox> found, ToMailbox(rows));
  if (!found) co_return MailboxNotFound(id);
  co_return *std::move(found);
}

async::Task<absl::StatusOr<std::vector<v1::Mailbox>>> MailboxStore::List(MailboxSelection selection, std::string after,
                                                                         int limit) {
  ListStatement list = Select(selection, after, limit);
  sql::Statement statement{list.sql, std::move(list.params)};
  PS_CO_ASSIGN_OR_RETURN(sql::Result rows, co_await database_.ReadOne(std::move(statement)));
  std::vector<v1::Mailbox> out;
  out.reserve(rows.rows.size());
  for (const sql::Row& row : rows.rows) {
    if (!out.emplace_back().ParseFromString(row.Text(0))) co_return absl::DataLossError("a stored mailbox is damaged");
  }
  co_return out;
}

async::Task<absl::StatusOr<v1::Mailbox>> MailboxStore::Update(StoredMailbox mailbox, std::string expected_etag,
                                                              Commit commit) {
  v1::Mailbox out;
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_RETURN_IF_ERROR(co_await TakeTurn(tx));
    const std::string id = IdOf(mailbox.mailbox);
    PS_CO_ASSIGN_OR_RETURN(std::optional<StoredMailbox> before, co_await ReadMailbox(tx, id));
    if (!before) co_return MailboxNotFound(id);
    if (before->mailbox.etag() != expected_etag) co_return EtagMismatch("mailboxes/" + id);
    PS_CO_RETURN_IF_ERROR(co_await CheckName(tx, mailbox.mailbox));
    PS_CO_RETURN_IF_ERROR(co_await CheckReferences(tx, mailbox.mailbox));
    StoredMailbox next = mailbox;
    if (next.sealed_password.empty()) next.sealed_password = before->sealed_password;
    const v1::Mailbox& old = before->mailbox;
    next.mailbox.set_connection_generation(old.connection_generation() +
                                           (ConnectionChanged(old, next.mailbox) ? 1 : 0));
    next.mailbox.set_enable_generation(old.enable_generation() + (!old.enabled() && next.mailbox.enabled() ? 1 : 0));
    if (mailbox.sealed_password.empty() && IsSame(old, next.mailbox)) {
      out = old;
      co_return absl::OkStatus();
    }
    PS_CO_RETURN_IF_ERROR(co_await WriteMailbox(tx, next, history_));
    out = next.mailbox;
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await Run(work, commit));
  co_return out;
}

async::Task<absl::Status> MailboxStore::Delete(std::string id, std::string expected_etag, bool clear_references,
                                               Commit commit) {
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_RETURN_IF_ERROR(co_await TakeTurn(tx));
    PS_CO_ASSIGN_OR_RETURN(std::optional<StoredMailbox> before, co_await ReadMailbox(tx, id));
    if (!before) co_return MailboxNotFound(id);
    const std::string name = "mailboxes/" + id;
    if (!expected_etag.empty() && before->mailbox.etag() != expected_etag) co_return EtagMismatch(name);
    PS_CO_ASSIGN_OR_RETURN(std::vector<std::string> repliers, co_await UsersOf(tx, name, kReplyVia));
    if (!repliers.empty() && !clear_references) {
      co_return InUse(name, repliers, "MAILBOX_IN_USE",
                      "let them reply through another mailbox first, or set clear_references");
    }
    PS_CO_ASSIGN_OR_RETURN(std::vector<std::string> users, co_await UsersOf(tx, name, ""));
    PS_CO_RETURN_IF_ERROR(co_await ReplaceInMailboxes(tx, std::move(users), name, "", history_));
    co_return co_await EraseMailbox(tx, id, history_);
  };
  co_return co_await Run(work, commit);
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

async::Task<absl::StatusOr<int64_t>> MailboxStore::LastRevision() {
  sql::Statement statement{"SELECT COALESCE(MAX(revision), 0) FROM mailbox_change", {}};
  PS_CO_ASSIGN_OR_RETURN(sql::Result last, co_await database_.ReadOne(std::move(statement)));
  co_return last.rows[0].Int(0);
}

}  // namespace poststelle::config
