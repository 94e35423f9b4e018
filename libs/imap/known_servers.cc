#include "libs/imap/known_servers.h"

namespace poststelle::imap {

std::set<std::string> KnownServers::Find(const std::string& server) const {
  std::lock_guard lock(mutex_);
  auto it = entries_.find(server);
  if (it == entries_.end() || it->second.failures >= kMaxFailures) return {};
  return it->second.capabilities;
}

void KnownServers::Remember(const std::string& server, const std::set<std::string>& capabilities) {
  std::lock_guard lock(mutex_);
  if (entries_.size() >= kMaxServers && !entries_.contains(server)) return;
  entries_[server].capabilities = capabilities;
}

void KnownServers::Failed(const std::string& server) {
  std::lock_guard lock(mutex_);
  auto it = entries_.find(server);
  if (it == entries_.end()) return;
  ++it->second.failures;
  it->second.capabilities.clear();  // the next session goes step by step
}

}  // namespace poststelle::imap
