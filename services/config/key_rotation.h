// Moves what is sealed to another key while config serves, a batch at a time.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"
#include "libs/secrets/vault.h"
#include "libs/sql/database.h"

namespace poststelle::config {

// What a key is needed for.
struct KeyUse {
  int64_t secrets = 0;   // stored passwords
  int64_t requests = 0;  // creates that are recognised when they are sent again
};

// Works beside config processes: each batch is one transaction in a writer's turn, so that no update in between brings
// an old seal back. Ended at any point it has done part of the work, and the next run does the rest. Errors are the
// database's.
class KeyRotation {
 public:
  // Both live as long as the calls. `batch`: secrets of one transaction; other writers wait for so long.
  KeyRotation(sql::Database& database, const secrets::Vault& vault, int batch = 100)
      : database_(database), vault_(vault), batch_(batch) {}

  // By key id, also of keys that the file does not hold; "" counts what is malformed.
  async::Task<absl::StatusOr<std::map<std::string, KeyUse>>> Usage();

  struct Resealed {
    int64_t rewritten = 0;
    int64_t already = 0;                  // under the first key before
    std::vector<std::string> unreadable;  // mailboxes whose secret can't be opened; it stays as it is
  };
  // Seals every secret with the vault's first key. Goes over all of them until there was nothing left to do: a process
  // that had not seen the key yet may still store one under another.
  async::Task<absl::StatusOr<Resealed>> ResealAll();

  struct Retired {
    std::vector<std::string> keys;   // those of `candidates` that sealed nothing
    int64_t forgotten_requests = 0;  // remembered under them
  };
  // Takes those of `candidates` that seal nothing out of use for good; the first key never.
  async::Task<absl::StatusOr<Retired>> Retire(std::vector<std::string> candidates);

 private:
  // One batch behind `after`, which moves on; false when nothing was left.
  async::Task<absl::StatusOr<bool>> ResealBatch(std::string& after, Resealed& resealed);
  sql::Database& database_;
  const secrets::Vault& vault_;
  const int batch_;
};

}  // namespace poststelle::config
