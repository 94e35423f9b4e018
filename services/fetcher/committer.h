// Group commit: merges the units of many mailboxes into few transactions, each behind its mailbox's fence.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "libs/async/runtime.h"
#include "libs/sql/database.h"
#include "services/fetcher/ledger.h"

namespace poststelle::fetcher {

// A worker's claim to write for one mailbox. `fence` is 0 until the first write takes it (DESIGN §3: lazily), and is
// kept as long as the lease is unbroken. Touched by the mailbox's own coroutine and, inside a commit, by the committer.
struct Hold {
  FolderKey folder;
  int64_t fence = 0;
  int64_t seen_fence = 0;  // in SQL when the cursor was read or the fence was taken
  // The cursor that the listing in hand rests on; re-read and compared when the fence is taken.
  std::optional<Cursor> cursor;
  bool cursor_known = false;      // false: read it before listing
  bool nothing_pending = false;   // as of the last look, and nothing has been decided since
  std::atomic<bool> lost{false};  // another worker holds the mailbox: stop; read by the worker's loops as well
  // Messages that could not be downloaded, and how often it failed with them alone (0: only suspected, together with
  // others): they go last and one by one, and in the end aside, so that one mail that a server can't deliver never
  // blocks the others. Lives as long as the hold: from poll to poll of one worker.
  std::map<uint32_t, int> blamed;
  // The same for what is still to be fetched from folders that the mailbox no longer names.
  std::map<std::string, std::map<uint32_t, int>> blamed_elsewhere;
  // Messages whose attempt this process has counted and not finished.
  std::set<std::string> begun;
  // Messages of which the server announced more than it listed.
  struct Resized {
    uint64_t listed = 0;  // what anchors are made of
    uint64_t announced = 0;
    int times = 0;
  };
  std::map<uint32_t, Resized> resized;
};

// One change to the ledger, of one mailbox: a publication, or anything else. Applied in the order in which the mailbox
// submitted them.
struct Unit {
  Hold* hold = nullptr;
  const Publication* publication = nullptr;
  std::function<async::Task<absl::Status>(sql::Transaction&)> apply;  // where it is no publication
  absl::Status result;                                                // out
};

// Merges what is submitted within a few milliseconds, at most kMaxUnits a transaction: fence rows first, in the order
// of their mailboxes; then the changes; feed partitions last, ascending, so that workers never wait for each other in a
// circle. A mailbox whose fence is newer loses its units (kAborted, its hold is marked lost), the others commit. When
// the database refuses the transaction for its contents, its units are applied again, each behind a savepoint: the
// guilty one fails alone. Thread-safe.
class Committer {
 public:
  static constexpr size_t kMaxUnits = 512;

  // `holder` names this process start. `published` is called after each commit that published something; must not
  // block.
  Committer(asio::any_io_executor executor, sql::Database& database, const FeedInfo& feed, std::string holder,
            std::function<void()> published = nullptr);
  ~Committer();

  // Applies `units` (all of one mailbox, in order) and returns when they are durable or have failed; each unit's result
  // says which. The status is that of the first failed unit.
  async::Task<absl::Status> Commit(std::vector<Unit>& units);
  // The same for one unit.
  async::Task<absl::Status> Commit(Hold& hold, std::function<async::Task<absl::Status>(sql::Transaction&)> apply);

  const std::string& holder() const { return holder_; }
  // Refuses further work and waits for what is in hand.
  void Stop();

 private:
  struct Batch;
  using Batches = std::vector<std::shared_ptr<Batch>>;
  using Taken = std::map<Hold*, int64_t>;  // fences held in this transaction
  using Moved = std::set<Hold*>;           // whose cursor is no longer the one they rest on
  async::Task<void> Loop();
  // A moment for others to join; ends early when `company` batches wait.
  async::Task<absl::Status> AwaitCompany(size_t company);
  async::Task<void> Await(std::shared_ptr<Batch> batch);
  async::Task<absl::Status> CheckFences(Batches& batches, sql::Transaction& tx, Taken& taken, Moved& moved);
  async::Task<absl::Status> ApplyTogether(Batches& batches, sql::Transaction& tx, Taken& taken, Moved& moved);
  async::Task<absl::Status> ApplyOneByOne(Batches& batches, sql::Transaction& tx, Taken& taken, Moved& moved);
  async::Task<absl::Status> CommitBatches(Batches& batches);

  struct State;
  std::shared_ptr<State> state_;
  sql::Database& database_;
  const FeedInfo& feed_;
  const std::string holder_;
  const std::function<void()> published_;
  async::TaskScope scope_;
};

}  // namespace poststelle::fetcher
