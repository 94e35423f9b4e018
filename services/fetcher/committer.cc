#include "services/fetcher/committer.h"

#include <algorithm>
#include <deque>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "libs/base/status_macros.h"

namespace poststelle::fetcher {
namespace {

// Waiting this long for company costs less than an fsync.
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

Committer::Committer(asio::any_io_executor executor, sql::Database& database, std::string holder)
    : state_(std::make_shared<State>(executor)), database_(database), holder_(std::move(holder)), scope_(executor) {
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

async::Task<absl::Status> Committer::CheckFence(sql::Transaction& tx, Hold& hold, int64_t& fence) {
  // The row's lock is what makes the writers of a mailbox take turns, so there has to be a row.
  std::vector<sql::Value> key{hold.folder.mailbox.key};
  std::vector<sql::Statement> lock{
      {"INSERT INTO mailbox_fence (mailbox_key, fence, holder) VALUES ($1, 0, '') ON CONFLICT DO NOTHING", key},
      {"SELECT fence FROM mailbox_fence WHERE mailbox_key = $1 FOR UPDATE", key}};
  PS_CO_ASSIGN_OR_RETURN(std::vector<sql::Result> locked, co_await tx.ExecuteAll(std::move(lock)));
  const int64_t present = locked[1].rows[0].Int(0);
  if (hold.fence != 0) {
    if (present != hold.fence) {
      hold.lost = true;
      co_return absl::AbortedError(absl::StrCat("fenced: another worker took mailbox ", hold.folder.mailbox.id));
    }
    fence = present;
    co_return absl::OkStatus();
  }
  // First write since the lease was acquired: take the fence, and make sure that the listing rests on the cursor as it
  // is now and not on one that somebody moved meanwhile.
  PS_CO_ASSIGN_OR_RETURN(std::optional<Cursor> cursor, co_await ReadCursor(tx, hold.folder));
  if (hold.cursor_known) {
    // The reference time is written outside the fence and may only err towards importing more: it is not compared.
    Cursor now = cursor.value_or(Cursor{});
    Cursor then = hold.cursor.value_or(Cursor{});
    now.reference_ms = then.reference_ms = 0;
    if (cursor.has_value() != hold.cursor.has_value() || !(now == then)) {
      hold.cursor_known = false;
      co_return absl::AbortedError("the cursor moved since it was read; the listing is thrown away");
    }
  }
  std::vector<sql::Value> take{hold.folder.mailbox.key, present + 1, holder_};
  PS_CO_RETURN_IF_ERROR(
      (co_await tx.Execute("INSERT INTO mailbox_fence (mailbox_key, fence, holder) VALUES ($1, $2, $3) "
                           "ON CONFLICT (mailbox_key) DO UPDATE SET fence = excluded.fence, holder = excluded.holder",
                           std::move(take)))
          .status());
  fence = present + 1;
  co_return absl::OkStatus();
}

async::Task<absl::Status> Committer::Apply(std::vector<Batch*>& batches, sql::Transaction& tx,
                                           std::vector<std::pair<Hold*, int64_t>>& taken) {
  taken.clear();
  for (Batch* batch : batches) {
    Hold& hold = *batch->units[0].hold;
    int64_t fence = 0;
    auto known = std::find_if(taken.begin(), taken.end(), [&hold](const auto& t) { return t.first == &hold; });
    absl::Status fenced = absl::OkStatus();
    if (known == taken.end()) {
      fenced = co_await CheckFence(tx, hold, fence);
      if (absl::IsUnavailable(fenced)) co_return fenced;
      if (fenced.ok()) taken.emplace_back(&hold, fence);
    }
    for (Unit& unit : batch->units) {
      unit.result = fenced;
      if (!fenced.ok()) continue;
      PS_CO_RETURN_IF_ERROR(co_await tx.Savepoint("unit"));
      unit.result = co_await unit.apply(tx);
      if (unit.result.ok()) {
        PS_CO_RETURN_IF_ERROR(co_await tx.ReleaseSavepoint("unit"));
        continue;
      }
      if (absl::IsUnavailable(unit.result)) co_return unit.result;  // transient: the whole transaction again
      PS_CO_RETURN_IF_ERROR(co_await tx.RollbackTo("unit"));
      PS_CO_RETURN_IF_ERROR(co_await tx.ReleaseSavepoint("unit"));
    }
  }
  co_return absl::OkStatus();
}

async::Task<void> Committer::Loop() {
  while (true) {
    std::vector<std::shared_ptr<Batch>> batches;
    bool stopped = false;
    {
      std::lock_guard lock(state_->mutex);
      stopped = state_->stopped;
      size_t units = 0;
      while (!state_->queue.empty() && (batches.empty() || units + state_->queue.front()->units.size() <= kMaxUnits)) {
        units += state_->queue.front()->units.size();
        batches.push_back(std::move(state_->queue.front()));
        state_->queue.pop_front();
      }
    }
    if (batches.empty()) {
      if (stopped) co_return;
      if (absl::Status s = co_await state_->work.Wait(absl::Seconds(1)); s.ok()) {
        absl::Status lingered = co_await async::Sleep(kLinger);
        if (absl::IsCancelled(lingered)) co_return;
      }
      continue;
    }
    // Fence rows are locked in mailbox order, so that two workers can't wait for each other.
    std::stable_sort(batches.begin(), batches.end(), [](const auto& a, const auto& b) {
      return a->units[0].hold->folder.mailbox.key < b->units[0].hold->folder.mailbox.key;
    });
    std::vector<Batch*> refs;
    refs.reserve(batches.size());
    for (const auto& b : batches) refs.push_back(b.get());
    std::vector<std::pair<Hold*, int64_t>> taken;
    sql::Work work = [this, &refs, &taken](sql::Transaction& tx) { return Apply(refs, tx, taken); };
    absl::Status committed = co_await database_.Write(work);
    if (committed.ok()) {
      for (auto& [hold, fence] : taken) hold->fence = fence;
    } else {
      for (const auto& b : batches) {
        for (Unit& unit : b->units) unit.result = committed;
      }
    }
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
