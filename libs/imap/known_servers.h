// What servers told before a sign-in, so that the next session needs fewer round trips.
#pragma once

#include <map>
#include <mutex>
#include <set>
#include <string>

namespace poststelle::imap {

// Keeps the capabilities of each server that were told under verified TLS; a session that starts with implicit TLS
// writes its sign-in on their word, without waiting for the greeting. A server that can't bear it is no longer treated
// so. Thread-safe.
class KnownServers {
 public:
  // The capabilities to start with; empty: go step by step.
  std::set<std::string> Find(const std::string& server) const;
  void Remember(const std::string& server, const std::set<std::string>& capabilities);
  // A session that did not wait failed in a way that may be due to that. After kMaxFailures it is not tried again.
  void Failed(const std::string& server);

 private:
  static constexpr int kMaxFailures = 3;
  static constexpr size_t kMaxServers = 10'000;
  struct Entry {
    std::set<std::string> capabilities;
    int failures = 0;
  };
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;  // guarded by mutex_
};

}  // namespace poststelle::imap
