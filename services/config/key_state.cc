#include "services/config/key_state.h"

#include "absl/strings/str_cat.h"
#include "libs/base/reason.h"
#include "libs/base/status_macros.h"
#include "libs/secrets/vault.h"

namespace poststelle::config {
namespace {

using Params = std::vector<sql::Value>;

}  // namespace

// state: 1 a rotation to this key is under way (at most one row), 2 retired: seals nothing, now and later.
constexpr std::string_view kKeyStateSchema = R"sql(
CREATE TABLE key_state (
  key_id TEXT PRIMARY KEY,
  state INTEGER NOT NULL
);
)sql";

async::Task<absl::Status> CheckKeyNotRetired(sql::Transaction& tx, const std::string& sealed) {
  const std::string key_id = secrets::Vault::KeyOf(sealed);
  if (key_id.empty()) co_return absl::OkStatus();
  Params params{key_id};
  PS_CO_ASSIGN_OR_RETURN(
      sql::Result retired,
      co_await tx.Execute("SELECT key_id FROM key_state WHERE key_id = $1 AND state = 2", std::move(params)));
  if (retired.rows.empty()) co_return absl::OkStatus();
  co_return WithReason(absl::UnavailableError(absl::StrCat(
                           "key ", key_id,
                           " is retired: send the request again; if this stays, the key file of this process is an "
                           "old one, see poststelle-config keys list")),
                       "KEY_RETIRED");
}

async::Task<absl::StatusOr<std::string>> UnfinishedRotation(sql::Database& database) {
  std::string key_id;
  sql::Work work = [&key_id](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_ASSIGN_OR_RETURN(sql::Result found, co_await tx.Execute("SELECT key_id FROM key_state WHERE state = 1"));
    key_id = found.rows.empty() ? "" : found.rows[0].Text(0);
    co_return absl::OkStatus();
  };
  PS_CO_RETURN_IF_ERROR(co_await database.Read(work));
  co_return key_id;
}

async::Task<absl::Status> BeginRotation(sql::Database& database, std::string key_id) {
  sql::Work work = [&key_id](sql::Transaction& tx) -> async::Task<absl::Status> {
    PS_CO_RETURN_IF_ERROR((co_await tx.Execute("DELETE FROM key_state WHERE state = 1")).status());
    Params params{key_id};
    co_return (co_await tx.Execute("INSERT INTO key_state (key_id, state) VALUES ($1, 1)", std::move(params))).status();
  };
  co_return co_await database.Write(work);
}

async::Task<absl::Status> EndRotation(sql::Database& database) {
  sql::Work work = [](sql::Transaction& tx) -> async::Task<absl::Status> {
    co_return (co_await tx.Execute("DELETE FROM key_state WHERE state = 1")).status();
  };
  co_return co_await database.Write(work);
}

async::Task<absl::Status> RetireKey(sql::Transaction& tx, const std::string& key_id) {
  Params params{key_id};
  co_return (co_await tx.Execute("INSERT INTO key_state (key_id, state) VALUES ($1, 2) ON CONFLICT (key_id) DO UPDATE "
                                 "SET state = 2",
                                 std::move(params)))
      .status();
}

}  // namespace poststelle::config
