// The mailboxes as the config service has them, followed by its watch, and the passwords to sign in with.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"
#include "libs/base/secret_string.h"
#include "poststelle/config/v1/mailbox.pb.h"
#include "services/fetcher/ledger.h"

namespace poststelle::fetcher {

// One version of a mailbox; never changes, shared by whoever still works with it.
using MailboxRef = std::shared_ptr<const config::v1::Mailbox>;

// "mailboxes/abc" → "abc".
std::string MailboxIdOf(const std::string& resource_name);
// The folder of the mailbox and its identity in the ledger.
FolderKey FolderKeyOf(const config::v1::Mailbox& mailbox);

// What changed, told to the worker in order.
struct CatalogChange {
  std::string mailbox_id;
  MailboxRef mailbox;  // null: deleted
};

// The present mailboxes. Filled by ConfigWatch; read by everybody. Thread-safe.
class MailboxCatalog {
 public:
  // Called after every change, on the watch's coroutine; must not block.
  void OnChange(std::function<void(const CatalogChange&)> listener);
  MailboxRef Find(const std::string& mailbox_id) const;
  std::vector<MailboxRef> List() const;
  // How many of them are enabled.
  size_t enabled() const;
  // False until the first snapshot is complete.
  bool synced() const;

  void Upsert(config::v1::Mailbox mailbox);
  void Delete(const std::string& mailbox_id);
  // The snapshot is complete: what it did not hold is gone.
  void FinishSnapshot(const std::set<std::string>& seen);

 private:
  mutable std::mutex mutex_;
  std::map<std::string, MailboxRef> mailboxes_;
  size_t enabled_ = 0;
  std::function<void(const CatalogChange&)> listener_;
  bool synced_ = false;
};

// Hands out what is needed to sign in. Seam: gRPC in the service, a table in tests. Thread-safe.
struct Credentials {
  std::string login_name;
  SecretString password;
};
class CredentialSource {
 public:
  virtual ~CredentialSource() = default;
  // Errors: kFailedPrecondition with the config service's words if the secret can't be read, kUnavailable otherwise.
  virtual async::Task<absl::StatusOr<Credentials>> Get(const config::v1::Mailbox& mailbox) = 0;
};

}  // namespace poststelle::fetcher
