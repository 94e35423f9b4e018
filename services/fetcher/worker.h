// Claims due mailboxes from the Redis schedule and runs their polls, as many at once as it may.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "libs/async/runtime.h"
#include "libs/lease/schedule.h"
#include "services/fetcher/fetch_run.h"
#include "services/fetcher/mailbox_catalog.h"

namespace poststelle::fetcher {

struct WorkerOptions {
  int max_sessions = 200;                    // polls at once
  absl::Duration lease = absl::Seconds(10);  // how long a claim holds unrenewed
  absl::Duration renew_every = absl::Seconds(3);
};

// One worker of a fetcher process. Start() spawns its loops into its own scope; Drain() takes no more work, stops polls
// between two steps, gives every lease back, and returns when all of it has ended. Thread-safe.
class Worker {
 public:
  Worker(FetchContext& context, MailboxCatalog& catalog, lease::Schedule& schedule, WorkerOptions options,
         std::function<void(bool)> redis_ready);
  ~Worker();

  void Start();
  void Drain();

 private:
  struct Running;
  void OnCatalogChange(const CatalogChange& change);
  async::Task<void> ApplyChanges();
  async::Task<void> ClaimLoop();
  async::Task<absl::StatusOr<absl::Duration>> ClaimShard(int shard);
  async::Task<void> RenewLoop();
  async::Task<absl::Status> RegisterAll();
  async::Task<void> RunOne(std::shared_ptr<Running> running, MailboxRef mailbox);
  async::Task<void> Fetch(Running& running, MailboxRef mailbox);
  async::Task<void> Uncount(Running& running);
  async::Task<absl::Duration> Poll(Running& running, const MailboxRef& mailbox);
  size_t free_sessions() const;

  FetchContext& context_;
  MailboxCatalog& catalog_;
  lease::Schedule& schedule_;
  const WorkerOptions options_;
  const std::function<void(bool)> redis_ready_;
  async::Event wake_;
  async::Event changed_;
  async::TaskScope loops_;
  async::TaskScope polls_;

  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Running>> running_;
  std::map<std::string, std::shared_ptr<Hold>> holds_;  // of mailboxes polled before: cursor and fence
  std::set<std::string> changes_;
  bool draining_ = false;
  bool registered_ = false;
};

}  // namespace poststelle::fetcher
