// Claims due mailboxes from the Redis schedule and runs their polls, as many at once as it may.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "libs/async/runtime.h"
#include "libs/lease/connection_limits.h"
#include "libs/lease/finish_queue.h"
#include "libs/lease/schedule.h"
#include "services/fetcher/fetch_run.h"
#include "services/fetcher/mailbox_catalog.h"

namespace poststelle::fetcher {

struct WorkerOptions {
  int max_sessions = 200;                    // polls at once
  absl::Duration lease = absl::Seconds(10);  // how long a claim holds unrenewed
  absl::Duration renew_every = absl::Seconds(3);
};

// One worker of a fetcher process. Start() spawns its loops; Drain() takes no more work, stops polls between two steps,
// hands every mailbox over, and returns when all of it has ended. Thread-safe.
//
// Sharing: a worker is the preferred one of the mailboxes that it polled last ("mine"). While it holds less than its
// share (mailboxes by live workers) it takes more; while it holds more it gives up mailboxes at the end of their polls.
// While Redis is away it goes on with its own, after a look at their fences in SQL before each poll.
class Worker {
 public:
  Worker(FetchContext& context, MailboxCatalog& catalog, lease::Schedule& schedule, lease::ConnectionLimits& limits,
         WorkerOptions options, std::function<void(bool)> redis_ready);
  ~Worker();

  void Start();
  void Drain();

 private:
  struct Running;
  // What this worker polled last and may poll again.
  struct Mine {
    absl::Time due;
    std::shared_ptr<Hold> hold;  // cursor and fence as of then
  };
  void OnCatalogChange(const CatalogChange& change);
  async::Task<void> ApplyChanges();
  async::Task<void> ClaimLoop();
  async::Task<absl::Status> ClaimAll(absl::Duration& idle);
  async::Task<void> Take(lease::ClaimResult& claimed);
  bool Short(int64_t members);
  async::Task<void> RenewLoop();
  async::Task<void> SweepLoop();
  void ForgetCursors();
  void Finished(const absl::Status& told);
  async::Task<void> RegisterLoop();
  async::Task<absl::Status> RegisterAll();
  async::Task<absl::Status> PollMineWithoutRedis(absl::Duration& idle);
  bool StartPoll(const MailboxRef& mailbox, bool unbroken);
  async::Task<void> RunOne(std::shared_ptr<Running> running, MailboxRef mailbox);
  async::Task<void> Fetch(Running& running, MailboxRef mailbox);
  async::Task<void> Uncount(Running& running);
  async::Task<absl::Duration> Poll(Running& running, const MailboxRef& mailbox);
  size_t free_sessions() const;
  bool draining() const;

  FetchContext& context_;
  MailboxCatalog& catalog_;
  lease::Schedule& schedule_;
  lease::ConnectionLimits& limits_;
  const WorkerOptions options_;
  const std::function<void(bool)> redis_ready_;
  async::Event wake_;
  async::Event changed_;
  async::Event to_register_;
  lease::FinishQueue finished_;  // to be told to the schedule
  async::TaskScope claiming_;
  async::TaskScope loops_;
  async::TaskScope polls_;
  async::TaskScope finishing_;

  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Running>> running_;
  std::map<std::string, Mine> mine_;
  std::set<std::string> changes_;
  std::map<std::string, int> unknown_;  // how often the schedule named a mailbox that the catalog does not
  int64_t held_ = 0;                    // mailboxes whose preferred worker this one is, as of the last claims
  int64_t share_ = 0;                   // how many it should be; 0: not known
  bool away_ = false;                   // Redis does not answer
  bool draining_ = false;
  bool registered_ = false;   // the schedule holds what the catalog does, as far as is known
  absl::Time registered_at_;  // when that was last done
  // Of the claim loop alone.
  std::optional<absl::Time> short_since_;  // the schedule holds fewer mailboxes than the catalog
  // Of the register loop alone.
  std::map<std::string, absl::Time> proposed_;  // due times proposed for others' mailboxes since the last wipe
};

}  // namespace poststelle::fetcher
