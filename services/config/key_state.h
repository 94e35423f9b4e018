// What the database remembers about keys, so that all config processes and later commands agree on it.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"
#include "libs/sql/database.h"

namespace poststelle::config {

// Part of ConfigMigrations().
extern const std::string_view kKeyStateSchema;

// kUnavailable (KEY_RETIRED) if `sealed` was sealed with a key that `keys prune` took out of use: by a process that had
// not seen the key file's change yet. Sealing again helps. Called by writers in their turn, so that nothing is stored
// under a key that goes. Empty is fine.
async::Task<absl::Status> CheckKeyNotRetired(sql::Transaction& tx, const std::string& sealed);

// The key that a rotation which was not finished goes to; empty if there is none.
async::Task<absl::StatusOr<std::string>> UnfinishedRotation(sql::Database& database);
// A rotation to `key_id` begins (instead of any other), and is complete.
async::Task<absl::Status> BeginRotation(sql::Database& database, std::string key_id);
async::Task<absl::Status> EndRotation(sql::Database& database);

// Within a turn: nothing can be stored under `key_id` from now on.
async::Task<absl::Status> RetireKey(sql::Transaction& tx, const std::string& key_id);

}  // namespace poststelle::config
