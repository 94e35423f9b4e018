#include "services/config/key_rotation.h"

#include "absl/strings/str_cat.h"
#include "libs/base/status_macros.h"
#include "services/config/key_state.h"
#include "services/config/mailbox_service.h"
#include "services/config/mailbox_store.h"

namespace poststelle::config {
namespace {

using Params = std::vector<sql::Value>;

// Each further pass is needed only while other processes still store under an old key, which ends once they have seen
// the key file's change.
constexpr int kPasses = 10;
constexpr int64_t kRowsAtOnce = 1000;

// What the sealed secrets of one key begin with.
sql::Blob PrefixOf(const std::string& key_id) { return sql::Blob{absl::StrCat("1", key_id, std::string(1, '\0'))}; }

// Calls `take` with the text of column 1 of all rows; `page` gives those behind $1, at most $2, by column 0.
async::Task<absl::Status> ForEach(sql::Transaction& tx, std::string_view page,
                                  const std::function<void(const std::string&)>& take) {
  std::string after;
  while (true) {
    Params params{after, kRowsAtOnce};
    PS_CO_ASSIGN_OR_RETURN(sql::Result rows, co_await tx.Execute(page, std::move(params)));
    if (rows.rows.empty()) co_return absl::OkStatus();
    for (const sql::Row& row : rows.rows) take(row.Text(1));
    after = rows.rows.back().Text(0);
  }
}

}  // namespace

async::Task<absl::StatusOr<std::map<std::string, KeyUse>>> KeyRotation::Usage() {
  std::map<std::string, KeyUse> use;
  const std::function<void(const std::string&)> count_secret = [&use](const std::string& sealed) {
    if (!sealed.empty()) ++use[secrets::Vault::KeyOf(sealed)].secrets;
  };
  const std::function<void(const std::string&)> count_request = [&use](const std::string& hash) {
    if (!hash.empty()) ++use[secrets::Vault::KeyOfHash(hash)].requests;
  };
  sql::Work work = [&](sql::Transaction& tx) -> async::Task<absl::Status> {
    use.clear();
    PS_CO_RETURN_IF_ERROR(co_await ForEach(
        tx, "SELECT mailbox_id, sealed_password FROM mailbox WHERE mailbox_id > $1 ORDER BY mailbox_id LIMIT $2",
        count_secret));
    co_return co_await ForEach(
        tx, "SELECT request_id, request_hash FROM create_request WHERE request_id > $1 ORDER BY request_id LIMIT $2",
        count_request);
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Read(work));
  co_return use;
}

async::Task<absl::StatusOr<bool>> KeyRotation::ResealBatch(std::string& after, Resealed& resealed) {
  Resealed batch;
  std::string last;
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    batch = Resealed();
    last.clear();
    PS_CO_RETURN_IF_ERROR(co_await TakeTurn(tx));
    Params params{after, int64_t{batch_}};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result rows,
        co_await tx.Execute(
            "SELECT mailbox_id, sealed_password FROM mailbox WHERE mailbox_id > $1 ORDER BY mailbox_id LIMIT $2",
            std::move(params)));
    const std::string first = vault_.FirstKey();
    std::vector<sql::Statement> updates;
    for (const sql::Row& row : rows.rows) {
      last = row.Text(0);
      const std::string& sealed = row.Text(1);
      if (sealed.empty()) continue;
      if (secrets::Vault::KeyOf(sealed) == first) {
        ++batch.already;
        continue;
      }
      const std::string record = PasswordRecord(last);
      absl::StatusOr<SecretString> secret = vault_.Open(sealed, record);
      if (!secret.ok()) {
        batch.unreadable.push_back(absl::StrCat("mailboxes/", last));
        continue;
      }
      PS_CO_ASSIGN_OR_RETURN(std::string fresh, vault_.Seal(*secret, record));
      sql::Statement update;
      update.sql = "UPDATE mailbox SET sealed_password = $2 WHERE mailbox_id = $1";
      update.params = {last, sql::Blob{std::move(fresh)}};
      updates.push_back(std::move(update));
      ++batch.rewritten;
    }
    if (updates.empty()) co_return absl::OkStatus();
    PS_CO_RETURN_IF_ERROR(co_await CheckKeyNotRetired(tx, PrefixOf(first).bytes));
    co_return (co_await tx.ExecuteAll(std::move(updates))).status();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Write(work));
  if (last.empty()) co_return false;
  after = last;
  resealed.rewritten += batch.rewritten;
  resealed.already += batch.already;
  resealed.unreadable.insert(resealed.unreadable.end(), batch.unreadable.begin(), batch.unreadable.end());
  co_return true;
}

async::Task<absl::StatusOr<KeyRotation::Resealed>> KeyRotation::ResealAll() {
  Resealed all;
  for (int pass = 0; pass < kPasses; ++pass) {
    Resealed now;
    std::string after;
    bool more = true;
    while (more) {
      PS_CO_ASSIGN_OR_RETURN(more, co_await ResealBatch(after, now));
    }
    all.rewritten += now.rewritten;
    if (pass == 0) all.already = now.already;
    all.unreadable = std::move(now.unreadable);
    if (now.rewritten == 0) co_return all;
  }
  co_return absl::UnavailableError(
      "secrets are still stored under another key: a config process uses another key file, or one that does not "
      "change there; mend that and rotate again");
}

async::Task<absl::StatusOr<KeyRotation::Retired>> KeyRotation::Retire(std::vector<std::string> candidates) {
  Retired out;
  sql::Work work = [&, this](sql::Transaction& tx) -> async::Task<absl::Status> {
    out = Retired();
    PS_CO_RETURN_IF_ERROR(co_await TakeTurn(tx));
    for (const std::string& key_id : candidates) {
      if (key_id == vault_.FirstKey()) continue;
      const sql::Blob prefix = PrefixOf(key_id);
      Params seals{prefix, static_cast<int64_t>(prefix.bytes.size())};
      PS_CO_ASSIGN_OR_RETURN(
          sql::Result sealed,
          co_await tx.Execute("SELECT mailbox_id FROM mailbox WHERE substr(sealed_password, 1, CAST($2 AS INTEGER)) = "
                              "$1 LIMIT 1",
                              std::move(seals)));
      if (!sealed.rows.empty()) continue;
      PS_CO_RETURN_IF_ERROR(co_await RetireKey(tx, key_id));
      const std::string hashed = absl::StrCat(key_id, ":");
      Params hashes{hashed, static_cast<int64_t>(hashed.size())};
      PS_CO_ASSIGN_OR_RETURN(
          sql::Result forgotten,
          co_await tx.Execute("DELETE FROM create_request WHERE substr(request_hash, 1, CAST($2 AS INTEGER)) = $1",
                              std::move(hashes)));
      out.forgotten_requests += forgotten.changed;
      out.keys.push_back(key_id);
    }
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database_.Write(work));
  co_return out;
}

}  // namespace poststelle::config
