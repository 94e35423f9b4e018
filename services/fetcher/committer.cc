#include "services/fetcher/committer.h"

#include <algorithm>
#include <deque>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "libs/base/failpoint.h"
#include "libs/base/status_macros.h"
#include "services/fetcher/publish.h"

namespace poststelle::fetcher {
namespace {

// Waiting this long for company costs less than an fsync; no longer than until as many have come as the last time.
constexpr absl::Duration kLinger = absl::Milliseconds(2);

}  // namespace

// What one Commit() call submitted; lives on that coroutine's frame until `done` was notified.
struct Committer::Batch {
  Batch(asio::any_io_executor executor, std::vector<Unit>& u) : units(u), done(std::move(executor)) {}
  std::vector<Unit>& units;
  async::Event done;
  bool finished = false;
};

struct Committer::State {
  explicit State(const asio::any_io_executor& e) : executor(e), work(e) {}
  asio::any_io_executor executor;
  async::Event work;
  std::mutex mutex;
  std::deque<std::shared_ptr<Batch>> queue;  // guarded by mutex
  bool stopped = false;                      // guarded by mutex
};

Committer::Committer(asio::any_io_executor executor, sql::Database& database, const FeedInfo& feed, std::string holder,
                     std::function<void()> published)
    : state_(std::make_shared<State>(executor)),
      database_(database),
      feed_(feed),
      holder_(std::move(holder)),
      published_(std::move(published)),
      scope_(executor) {
  scope_.Spawn(Loop());
}

Committer::~Committer() { Stop(); }

void Committer::Stop() {
  {
    std::lock_guard lock(state_->mutex);
    if (state_->stopped) return;
    state_->stopped = true;
  }
  state_->work.Notify();
  scope_.JoinBlocking();
}

async::Task<void> Committer::Await(std::shared_ptr<Batch> batch) {
  while (true) {
    {
      std::lock_guard lock(state_->mutex);
      if (batch->finished) co_return;
    }
    absl::Status woken = co_await batch->done.Wait(absl::Seconds(1));
    if (absl::IsCancelled(woken)) co_return;
  }
}

async::Task<absl::Status> Committer::Commit(std::vector<Unit>& units) {
  if (units.empty()) co_return absl::OkStatus();
  auto batch = std::make_shared<Batch>(state_->executor, units);
  {
    std::lock_guard lock(state_->mutex);
    if (state_->stopped) co_return absl::CancelledError("the service is shutting down");
    state_->queue.push_back(batch);
  }
  state_->work.Notify();
  // Not abandoned on cancellation (RunOn lets none through): the units refer to the caller's frame.
  co_await async::RunOn(state_->executor, Await(batch));
  for (const Unit& unit : units) {
    if (!unit.result.ok()) co_return unit.result;
  }
  co_return absl::OkStatus();
}

async::Task<absl::Status> Committer::Commit(Hold& hold,
                                            std::function<async::Task<absl::Status>(sql::Transaction&)> apply) {
  std::vector<Unit> units(1);
  units[0].hold = &hold;
  units[0].apply = std::move(apply);
  co_return co_await Commit(units);
}

// Locks the fence rows of all mailboxes in hand. A hold without a fence takes one, and its cursor must be the one in
// SQL: a listing that rests on an older one is thrown away. Losers get their units' results here.
async::Task<absl::Status> Committer::CheckFences(Batches& batches, sql::Transaction& tx, Taken& taken, Moved& moved) {
  taken.clear();
  moved.clear();
  std::vector<Hold*> holds;  // in mailbox order, as the batches are
  for (const auto& batch : batches) {
    Hold* hold = batch->units[0].hold;
    if (std::find(holds.begin(), holds.end(), hold) == holds.end()) holds.push_back(hold);
  }
  std::vector<sql::Statement> fences;
  for (Hold* hold : holds) {
    const std::string& key = hold->folder.mailbox.key;
    if (hold->fence != 0) {
      fences.push_back({"SELECT fence FROM mailbox_fence WHERE mailbox_key = $1 FOR UPDATE", {key}});
    } else {
      fences.push_back(
          {"INSERT INTO mailbox_fence (mailbox_key, fence, holder) VALUES ($1, 1, $2) ON CONFLICT "
           "(mailbox_key) DO UPDATE SET fence = mailbox_fence.fence + 1, holder = excluded.holder "
           "RETURNING fence",
           {key, holder_}});
    }
  }
  PS_CO_ASSIGN_OR_RETURN(std::vector<sql::Result> rows, co_await tx.ExecuteAll(std::move(fences)));
  std::map<Hold*, absl::Status> refused;
  for (size_t i = 0; i < holds.size(); ++i) {
    Hold* hold = holds[i];
    const int64_t present = rows[i].rows.empty() ? 0 : rows[i].rows[0].Int(0);
    if (hold->fence != 0) {
      if (present != hold->fence && !DeliberatelyBroken("fence_not_checked")) {
        hold->lost = true;
        refused[hold] =
            absl::AbortedError(absl::StrCat("fenced: another worker took mailbox ", hold->folder.mailbox.id));
      } else {
        taken[hold] = hold->fence;
      }
      continue;
    }
    taken[hold] = present;
    if (!hold->cursor_known || DeliberatelyBroken("cursor_not_compared")) continue;
    PS_CO_ASSIGN_OR_RETURN(std::optional<Cursor> cursor, co_await ReadCursor(tx, hold->folder));
    // The reference time is written outside the fence and may only err towards importing more: it is not compared.
    Cursor now = cursor.value_or(Cursor{});
    Cursor then = hold->cursor.value_or(Cursor{});
    now.reference_ms = then.reference_ms = 0;
    if (cursor.has_value() == hold->cursor.has_value() && now == then) continue;
    taken.erase(hold);
    moved.insert(hold);  // told to the hold after the transaction: it may be replayed, and is to compare again then
    refused[hold] = absl::AbortedError("the cursor moved since it was read; the listing is thrown away");
  }
  for (const auto& batch : batches) {
    auto it = refused.find(batch->units[0].hold);
    for (Unit& unit : batch->units) unit.result = it == refused.end() ? absl::OkStatus() : it->second;
  }
  co_return absl::OkStatus();
}

// The quick way: publications of all mailboxes as one set of statements. Any error is the whole transaction's.
async::Task<absl::Status> Committer::ApplyTogether(Batches& batches, sql::Transaction& tx, Taken& taken, Moved& moved) {
  PS_CO_RETURN_IF_ERROR(co_await CheckFences(batches, tx, taken, moved));
  std::vector<const Publication*> publications;
  for (const auto& batch : batches) {
    for (Unit& unit : batch->units) {
      if (!unit.result.ok()) continue;
      if (unit.publication != nullptr) {
        publications.push_back(unit.publication);
      } else {
        PS_CO_RETURN_IF_ERROR(co_await unit.apply(tx));
      }
    }
  }
  co_return co_await PublishAll(tx, publications, feed_);
}

// The slow way, which finds the guilty one. Each unit moves the heads of its own partitions, in whatever order the
// units come: so all heads are locked before, ascending like those of the quick way. Others wait for this transaction,
// which is rare.
async::Task<absl::Status> Committer::ApplyOneByOne(Batches& batches, sql::Transaction& tx, Taken& taken, Moved& moved) {
  PS_CO_RETURN_IF_ERROR(co_await CheckFences(batches, tx, taken, moved));
  PS_CO_RETURN_IF_ERROR(
      (co_await tx.Execute("SELECT partition FROM partition_head ORDER BY partition FOR UPDATE")).status());
  for (const auto& batch : batches) {
    for (Unit& unit : batch->units) {
      if (!unit.result.ok()) continue;
      PS_CO_RETURN_IF_ERROR(co_await tx.Savepoint("unit"));
      if (unit.publication != nullptr) {
        std::vector<const Publication*> one{unit.publication};
        unit.result = co_await PublishAll(tx, one, feed_);
      } else {
        unit.result = co_await unit.apply(tx);
      }
      if (absl::IsUnavailable(unit.result)) co_return unit.result;  // transient: the whole transaction
      if (!unit.result.ok()) PS_CO_RETURN_IF_ERROR(co_await tx.RollbackTo("unit"));
      PS_CO_RETURN_IF_ERROR(co_await tx.ReleaseSavepoint("unit"));
    }
  }
  co_return absl::OkStatus();
}

async::Task<absl::Status> Committer::CommitBatches(Batches& batches) {
  Taken taken;
  Moved moved;
  sql::Work together = [&, this](sql::Transaction& tx) { return ApplyTogether(batches, tx, taken, moved); };
  absl::Status committed = co_await database_.Write(together);
  if (!committed.ok() && !absl::IsUnavailable(committed) && !absl::IsCancelled(committed)) {
    sql::Work singly = [&, this](sql::Transaction& tx) { return ApplyOneByOne(batches, tx, taken, moved); };
    committed = co_await database_.Write(singly);
  }
  for (Hold* hold : moved) hold->cursor_known = false;
  if (committed.ok()) {
    for (auto& [hold, fence] : taken) hold->fence = hold->seen_fence = fence;
  }
  co_return committed;
}

async::Task<absl::Status> Committer::AwaitCompany(size_t company) {
  const absl::Time end = absl::Now() + kLinger;
  while (true) {
    {
      std::lock_guard lock(state_->mutex);
      if (state_->stopped || state_->queue.size() >= company) co_return absl::OkStatus();
    }
    const absl::Duration rest = end - absl::Now();
    if (rest <= absl::ZeroDuration()) co_return absl::OkStatus();
    absl::Status woken = co_await state_->work.Wait(rest);
    if (absl::IsCancelled(woken)) co_return woken;
  }
}

async::Task<void> Committer::Loop() {
  size_t company = 0;  // whom the last transaction merged
  while (true) {
    bool idle = false;
    {
      std::lock_guard lock(state_->mutex);
      idle = state_->queue.empty();
      if (idle && state_->stopped) co_return;
    }
    if (idle) {
      absl::Status woken = co_await state_->work.Wait(absl::Seconds(1));
      if (absl::IsCancelled(woken)) co_return;
      continue;
    }
    if (absl::Status waited = co_await AwaitCompany(company); absl::IsCancelled(waited)) co_return;
    Batches batches;
    {
      std::lock_guard lock(state_->mutex);
      size_t units = 0;
      while (!state_->queue.empty() && (batches.empty() || units + state_->queue.front()->units.size() <= kMaxUnits)) {
        units += state_->queue.front()->units.size();
        batches.push_back(std::move(state_->queue.front()));
        state_->queue.pop_front();
      }
    }
    company = batches.size();
    // Fence rows are locked in mailbox order, so that two workers can't wait for each other.
    std::stable_sort(batches.begin(), batches.end(), [](const auto& a, const auto& b) {
      return a->units[0].hold->folder.mailbox.key < b->units[0].hold->folder.mailbox.key;
    });
    absl::Status committed = co_await CommitBatches(batches);
    bool published = false;
    for (const auto& b : batches) {
      for (Unit& unit : b->units) {
        if (!committed.ok()) unit.result = committed;
        published = published || (unit.publication != nullptr && unit.result.ok());
      }
    }
    if (published && published_) published_();
    for (const auto& b : batches) {
      {
        std::lock_guard lock(state_->mutex);
        b->finished = true;
      }
      b->done.Notify();
    }
  }
}

}  // namespace poststelle::fetcher
