#include "libs/async/runtime.h"

#include <algorithm>
#include <asio/bind_cancellation_slot.hpp>
#include <asio/bind_executor.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/co_spawn.hpp>
#include <asio/dispatch.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/experimental/as_tuple.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <asio/strand.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <future>
#include <mutex>
#include <thread>
#include <unordered_set>
#include <utility>

namespace poststelle::async {
namespace {

constexpr auto kUse = asio::experimental::as_tuple(asio::use_awaitable);

[[noreturn]] void Die(const char* what) {
  std::fprintf(stderr, "async: %s\n", what);
  std::abort();
}

void DieOn(const std::exception_ptr& error) {
  if (!error) return;
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "async: an exception escaped a task: %s\n", e.what());
  } catch (...) {
    std::fprintf(stderr, "async: an unknown exception escaped a task\n");
  }
  std::abort();
}

std::chrono::steady_clock::time_point DeadlineAfter(absl::Duration timeout) {
  // Beyond a year counts as never: adding it to now could overflow.
  if (timeout > absl::Hours(24 * 365)) return std::chrono::steady_clock::time_point::max();
  return std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(std::max(timeout, absl::ZeroDuration()));
}

// Every task starts here: total cancellation is let through (asio's default is terminal only) and shows up as an
// error code of the operation, never as an exception from co_await.
Task<void> Root(Task<void> task) {
  co_await asio::this_coro::reset_cancellation_state(asio::enable_total_cancellation());
  co_await asio::this_coro::throw_if_cancelled(false);
  co_await std::move(task);
}

// One suspended coroutine. The timer is touched on the coroutine's own executor only (a strand for every task of
// this library); Wake may be called from anywhere.
struct Waiter : std::enable_shared_from_this<Waiter> {
  explicit Waiter(const asio::any_io_executor& ex) : executor(ex), timer(ex) {}
  void Wake() {
    if (woken.exchange(true)) return;
    asio::post(executor, [self = shared_from_this()] { self->timer.cancel(); });
  }
  asio::any_io_executor executor;
  asio::steady_timer timer;
  std::atomic<bool> woken = false;
};

Task<bool> Cancelled() {
  const asio::cancellation_state state = co_await asio::this_coro::cancellation_state;
  co_return state.cancelled() != asio::cancellation_type::none;
}

Task<std::shared_ptr<Waiter>> MakeWaiter() {
  // After SwitchTo the coroutine may be elsewhere: the timer belongs to its own executor.
  co_await asio::dispatch(asio::use_awaitable);
  asio::any_io_executor executor = co_await asio::this_coro::executor;
  co_return std::make_shared<Waiter>(std::move(executor));
}

// Until Wake, the deadline, or (if `cancellable`) cancellation; the caller looks at `woken` and Cancelled().
Task<void> Suspend(std::shared_ptr<Waiter> waiter, absl::Duration timeout, bool cancellable) {
  co_await asio::dispatch(asio::use_awaitable);
  const auto deadline = DeadlineAfter(timeout);
  while (!waiter->woken && std::chrono::steady_clock::now() < deadline) {
    if (cancellable && co_await Cancelled()) co_return;
    waiter->timer.expires_at(deadline);
    if (cancellable) {
      co_await waiter->timer.async_wait(kUse);
    } else {
      co_await waiter->timer.async_wait(asio::bind_cancellation_slot(asio::cancellation_slot(), kUse));
    }
  }
}

}  // namespace

// ---- Runtime

struct Runtime::Impl {
  explicit Impl(int threads) : context(threads), guard(asio::make_work_guard(context)) {}
  asio::io_context context;
  asio::executor_work_guard<asio::io_context::executor_type> guard;
  std::vector<std::thread> threads;
};

Runtime::Runtime(int threads) : impl_(std::make_unique<Impl>(std::max(threads, 1))) {
  // OpenSSL writes to sockets with write(2), where MSG_NOSIGNAL can't be passed: a peer that hung up must not kill us.
  std::signal(SIGPIPE, SIG_IGN);
  for (int i = 0; i < std::max(threads, 1); ++i) {
    impl_->threads.emplace_back([this] {
      try {
        impl_->context.run();
      } catch (...) {
        DieOn(std::current_exception());
      }
    });
  }
}

Runtime::~Runtime() { Stop(); }

asio::any_io_executor Runtime::executor() const { return impl_->context.get_executor(); }

void Runtime::Stop() {
  impl_->guard.reset();
  impl_->context.stop();
  for (std::thread& thread : impl_->threads) {
    if (thread.get_id() == std::this_thread::get_id()) Die("Runtime::Stop on one of its own threads");
    if (thread.joinable()) thread.join();
  }
}

// ---- Free functions

void Spawn(const asio::any_io_executor& executor, Task<void> task) {
  // A strand of its own: timers and sockets of one task are never touched by two threads at once.
  asio::co_spawn(asio::make_strand(executor), Root(std::move(task)), [](std::exception_ptr error) { DieOn(error); });
}

void RunBlocking(const asio::any_io_executor& executor, Task<void> task) {
  std::promise<void> done;
  asio::co_spawn(asio::make_strand(executor), Root(std::move(task)), [&done](std::exception_ptr error) {
    DieOn(error);
    done.set_value();
  });
  done.get_future().wait();
}

Task<void> SwitchTo(asio::any_io_executor executor) {
  co_await asio::post(asio::bind_executor(executor, asio::use_awaitable));
}

Task<void> RunOn(asio::any_io_executor executor, Task<void> task) {
  // Through an explicit waiter rather than co_spawn(use_awaitable): the caller then resumes on its own strand.
  const std::shared_ptr<Waiter> waiter = co_await MakeWaiter();
  asio::any_io_executor strand = asio::make_strand(executor);
  asio::co_spawn(strand, Root(std::move(task)), [waiter](std::exception_ptr error) {
    DieOn(error);
    waiter->Wake();
  });
  co_await Suspend(waiter, absl::InfiniteDuration(), false);
}

Task<absl::Status> Sleep(absl::Duration duration) {
  const std::shared_ptr<Waiter> waiter = co_await MakeWaiter();
  co_await Suspend(waiter, duration, true);
  if (co_await Cancelled()) co_return absl::CancelledError("the wait was cancelled");
  co_return absl::OkStatus();
}

// ---- TaskScope

struct TaskScope::Impl : std::enable_shared_from_this<TaskScope::Impl> {
  struct Entry {
    explicit Entry(asio::any_io_executor executor) : strand(std::move(executor)) {}
    asio::any_io_executor strand;
    asio::cancellation_signal signal;  // touched on `strand` only
    bool finished = false;             // likewise
  };
  asio::any_io_executor executor;
  mutable std::mutex mutex;
  std::condition_variable empty;
  std::unordered_set<std::shared_ptr<Entry>> entries;
  std::vector<std::shared_ptr<Waiter>> joiners;
  bool cancelled = false;
  bool joining = false;

  void Finish(const std::shared_ptr<Entry>& entry) {
    std::vector<std::shared_ptr<Waiter>> wake;
    const std::lock_guard lock(mutex);
    entry->finished = true;
    entries.erase(entry);
    if (!entries.empty()) return;
    wake.swap(joiners);
    empty.notify_all();
    for (const auto& waiter : wake) waiter->Wake();
  }

  static void Emit(const std::shared_ptr<Entry>& entry) {
    if (!entry->finished) entry->signal.emit(asio::cancellation_type::total);
  }
};

namespace {

// Runs on the entry's strand, so that its cancellation signal is never touched by two threads.
struct Starter {
  std::shared_ptr<TaskScope::Impl> impl;
  std::shared_ptr<TaskScope::Impl::Entry> entry;
  Task<void> task;
  void operator()() {
    asio::co_spawn(
        entry->strand, Root(std::move(task)),
        asio::bind_cancellation_slot(entry->signal.slot(), [impl = impl, entry = entry](std::exception_ptr error) {
          DieOn(error);
          impl->Finish(entry);
          // The coroutine's last frames still refer to the signal: it dies a turn later.
          asio::post(entry->strand, [entry] {});
        }));
    bool cancelled = false;
    {
      const std::lock_guard lock(impl->mutex);
      cancelled = impl->cancelled;
    }
    if (cancelled) {
      asio::post(entry->strand, [entry = entry] { TaskScope::Impl::Emit(entry); });
    }
  }
};

}  // namespace

TaskScope::TaskScope(asio::any_io_executor executor) : impl_(std::make_shared<Impl>()) {
  impl_->executor = std::move(executor);
}

TaskScope::~TaskScope() {
  const std::lock_guard lock(impl_->mutex);
  if (!impl_->entries.empty()) Die("a TaskScope died with running tasks; Join() it first");
}

void TaskScope::Spawn(Task<void> task) {
  auto entry = std::make_shared<Impl::Entry>(asio::make_strand(impl_->executor));
  {
    const std::lock_guard lock(impl_->mutex);
    if (impl_->joining && impl_->entries.empty()) Die("TaskScope::Spawn after Join");
    impl_->entries.insert(entry);
  }
  Starter starter{impl_, entry, std::move(task)};
  asio::post(entry->strand, std::move(starter));
}

void TaskScope::Cancel() {
  std::vector<std::shared_ptr<Impl::Entry>> entries;
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->cancelled = true;
    entries.assign(impl_->entries.begin(), impl_->entries.end());
  }
  for (const auto& entry : entries) {
    asio::post(entry->strand, [entry] { Impl::Emit(entry); });
  }
}

bool TaskScope::cancelled() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->cancelled;
}

Task<void> TaskScope::Join() {
  const std::shared_ptr<Impl> impl = impl_;
  const std::shared_ptr<Waiter> waiter = co_await MakeWaiter();
  {
    const std::lock_guard lock(impl->mutex);
    impl->joining = true;
    if (impl->entries.empty()) co_return;
    impl->joiners.push_back(waiter);
  }
  co_await Suspend(waiter, absl::InfiniteDuration(), false);
}

void TaskScope::JoinBlocking() {
  std::unique_lock lock(impl_->mutex);
  impl_->joining = true;
  impl_->empty.wait(lock, [this] { return impl_->entries.empty(); });
}

size_t TaskScope::size() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->entries.size();
}

// ---- Event

struct Event::Impl {
  std::mutex mutex;
  bool set = false;
  std::vector<std::shared_ptr<Waiter>> waiters;
};

Event::Event(asio::any_io_executor) : impl_(std::make_shared<Impl>()) {}
Event::~Event() = default;

void Event::Notify() {
  std::vector<std::shared_ptr<Waiter>> wake;
  {
    const std::lock_guard lock(impl_->mutex);
    wake.swap(impl_->waiters);
    if (wake.empty()) impl_->set = true;
  }
  for (const auto& waiter : wake) waiter->Wake();
}

Task<absl::Status> Event::Wait(absl::Duration timeout) {
  const std::shared_ptr<Impl> impl = impl_;
  const std::shared_ptr<Waiter> waiter = co_await MakeWaiter();
  {
    const std::lock_guard lock(impl->mutex);
    if (impl->set) {
      impl->set = false;
      co_return absl::OkStatus();
    }
    impl->waiters.push_back(waiter);
  }
  co_await Suspend(waiter, timeout, true);
  {
    const std::lock_guard lock(impl->mutex);
    // Still listed: nobody notified this waiter.
    if (std::erase(impl->waiters, waiter) == 0) co_return absl::OkStatus();
  }
  if (co_await Cancelled()) co_return absl::CancelledError("the wait was cancelled");
  co_return absl::DeadlineExceededError("nothing happened in time");
}

// ---- Budget

struct Budget::Impl {
  struct Request {
    int64_t units;
    std::shared_ptr<Waiter> waiter;
  };
  std::mutex mutex;
  int64_t total = 0;
  int64_t free = 0;
  std::deque<Request> queue;

  bool Fits(int64_t units) const { return units <= free || (units > total && free == total); }

  // With the mutex held.
  void Grant() {
    while (!queue.empty() && Fits(queue.front().units)) {
      free -= queue.front().units;
      queue.front().waiter->Wake();
      queue.pop_front();
    }
  }
};

Budget::Budget(asio::any_io_executor, int64_t units) : impl_(std::make_shared<Impl>()) {
  impl_->total = units;
  impl_->free = units;
}
Budget::~Budget() = default;

Task<absl::Status> Budget::Acquire(int64_t units) {
  const std::shared_ptr<Impl> impl = impl_;
  const std::shared_ptr<Waiter> waiter = co_await MakeWaiter();
  if (co_await Cancelled()) co_return absl::CancelledError("the wait for budget was cancelled");
  {
    const std::lock_guard lock(impl->mutex);
    if (impl->queue.empty() && impl->Fits(units)) {
      impl->free -= units;
      co_return absl::OkStatus();
    }
    Impl::Request request{units, waiter};
    impl->queue.push_back(std::move(request));
  }
  co_await Suspend(waiter, absl::InfiniteDuration(), true);
  {
    const std::lock_guard lock(impl->mutex);
    const auto mine = std::find_if(impl->queue.begin(), impl->queue.end(),
                                   [&waiter](const Impl::Request& request) { return request.waiter == waiter; });
    if (mine == impl->queue.end()) co_return absl::OkStatus();  // granted, even if cancelled in the same moment
    impl->queue.erase(mine);
    impl->Grant();  // who stood behind a big request may fit now
  }
  co_return absl::CancelledError("the wait for budget was cancelled");
}

void Budget::Release(int64_t units) {
  const std::lock_guard lock(impl_->mutex);
  impl_->free += units;
  impl_->Grant();
}

}  // namespace poststelle::async
