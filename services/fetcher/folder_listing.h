// The first half of a poll, for one folder: list what is new, decide it, commit the decisions; look again at what was
// passed over, where that may have become wanted. What fits into one commit is one commit.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/fetcher/fetch_run.h"
#include "services/fetcher/listing.h"
#include "services/fetcher/listing_windows.h"

namespace poststelle::fetcher {

// Lives within one run, on the run's coroutine. `hold` has the folder in hand, its cursor known, whenever a method is
// called. Errors as RunFetch(); after kServerRefused the session goes on.
class FolderListing {
 public:
  FolderListing(FetchContext& context, const config::v1::Mailbox& mailbox, Hold& hold, OpenMailbox& open,
                FolderKey folder, imap::FolderState state, absl::Time started, const std::atomic<bool>& stop)
      : context_(context),
        config_(mailbox),
        hold_(hold),
        mailbox_(open),
        folder_(std::move(folder)),
        state_(state),
        started_(started),
        stop_(stop) {}

  // A folder in which nothing happened costs neither a command nor an SQL statement.
  async::Task<absl::Status> Run();

  const FolderKey& folder() const { return folder_; }
  uint32_t uid_validity() const { return state_.uid_validity; }
  int listed() const { return listed_; }                 // UIDs decided
  const std::string& notice() const { return notice_; }  // for the mailbox's status

 private:
  // What is decided and not committed yet.
  struct Decided {
    std::vector<Decision> decisions;
    bool complete = false;         // a first listing, or the first under a new UIDVALIDITY, has come to its end
    std::vector<uint32_t> unread;  // what was passed over as read, and is no longer
    std::vector<uint32_t> too_old;
  };
  async::Task<absl::Status> Begin();
  async::Task<absl::Status> Open();
  bool Complete() const;
  async::Task<absl::Status> List();
  async::Task<absl::Status> ListWindow(imap::UidRange range, ListingWindows& windows);
  async::Task<absl::StatusOr<Decision>> DecideOne(const ListedMessage& message);
  async::Task<absl::Status> CommitDecided();
  async::Task<absl::Status> RecheckReadMail();
  async::Task<absl::Status> ApplyChangedOptions();
  async::Task<absl::Status> Reevaluate();
  absl::Status CheckStop() const;

  FetchContext& context_;
  const config::v1::Mailbox& config_;
  Hold& hold_;
  OpenMailbox& mailbox_;
  const FolderKey folder_;
  imap::FolderState state_;
  const absl::Time started_;
  const std::atomic<bool>& stop_;

  ListingRules rules_;
  Cursor cursor_;  // as it is after the next commit
  std::unique_ptr<Decided> decided_;
  bool recognise_ = false;  // older identities exist: ask for header fields and match anchors
  std::vector<OpenRow> stale_pending_;
  std::vector<std::string> used_matches_;  // matched since the last commit
  bool known_ = false;                     // there was a complete listing before this one
  bool finished_ = false;                  // List() came to its end
  int listed_ = 0;
  std::string notice_;
};

}  // namespace poststelle::fetcher
