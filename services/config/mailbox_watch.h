// Watching mailboxes: one reader of the log of changes for all watchers of this process.
#pragma once

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"
#include "libs/rpc/server_stream.h"
#include "poststelle/config/v1/mailbox_service.pb.h"
#include "services/config/mailbox_store.h"

namespace poststelle::config {

using WatchStream = rpc::StreamOut<v1::WatchMailboxesResponse>;

// Reads each change once, whoever made it (this process, which nudges, or another one on the same database, which is
// found by looking every few milliseconds), and keeps the newest ones for the watchers to send. Looks only while there
// are watchers. Thread-safe.
class ChangeHub {
 public:
  // `store` outlives the hub; `epoch` is read by calls only.
  ChangeHub(asio::any_io_executor executor, MailboxStore& store, const std::string& epoch);
  ~ChangeHub();  // after Stop()

  void Start();
  void Stop();
  // There is a change to read.
  void Nudge() { look_.Notify(); }

  // A change as it is sent.
  struct Step {
    int64_t revision = 0;
    std::shared_ptr<const v1::WatchMailboxesResponse> response;
  };
  // The changes behind `revision`, oldest first, at most a few hundred; from memory where they are there. Errors: those
  // of MailboxStore::ReadChanges, and that of the last look while the database is away.
  async::Task<absl::StatusOr<std::vector<Step>>> Behind(int64_t revision);

  // Wakes `stream` at each change for as long as the handle lives.
  class Registration {
   public:
    Registration(ChangeHub& hub, std::shared_ptr<WatchStream> stream);
    ~Registration();
    Registration(const Registration&) = delete;
    Registration& operator=(const Registration&) = delete;

   private:
    ChangeHub& hub_;
    std::shared_ptr<WatchStream> stream_;
  };

 private:
  async::Task<void> Loop();
  async::Task<void> Look();
  Step ToStep(Change change) const;

  MailboxStore& store_;
  const std::string& epoch_;
  async::Event look_;
  async::TaskScope scope_;
  std::mutex mutex_;
  bool begun_ = false;               // whether `last_` means anything
  int64_t last_ = 0;                 // revision up to which changes were read
  std::deque<Step> recent_;          // the newest ones, without gaps, up to `last_`
  absl::Status trouble_;             // of the last look
  std::vector<WatchStream*> woken_;  // each kept alive by its Registration
};

// A token to resume behind `revision`.
std::string ResumeToken(const std::string& epoch, int64_t revision);

// Serves one watcher until it leaves or `draining`.
async::Task<grpc::Status> Watch(MailboxStore& store, ChangeHub& hub, const std::string& epoch, std::string resume_token,
                                std::shared_ptr<WatchStream> stream, const std::atomic<bool>& draining);

}  // namespace poststelle::config
