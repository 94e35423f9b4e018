// Threads that run coroutines, and the few pieces every coroutine here needs. Only runtime.cc includes the heavy
// parts of asio; everybody else sees asio/awaitable.hpp (docs/decisions/0002).
#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/awaitable.hpp>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace poststelle::async {

template <typename T>
using Task = asio::awaitable<T>;

// An I/O loop on `threads` threads. Built first and destroyed last in main. Thread-safe.
class Runtime {
 public:
  explicit Runtime(int threads);
  ~Runtime();  // Stop()
  asio::any_io_executor executor() const;
  // Ends the loop: queued work is dropped. Join every TaskScope before.
  void Stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Starts `task` on `executor`, detached. The caller guarantees that what the task refers to outlives it; prefer
// TaskScope. An exception that escapes a task is a defect of ours and ends the process with its text.
void Spawn(const asio::any_io_executor& executor, Task<void> task);

// Runs `task` on `executor` and blocks the calling thread until it has finished. Never from a loop thread.
void RunBlocking(const asio::any_io_executor& executor, Task<void> task);

// Resumes the awaiting coroutine on `executor`; whoever awaited before continues there too.
Task<void> SwitchTo(asio::any_io_executor executor);

// Runs `task` to its end on `executor` (for instance the SQL thread) while the caller waits on its own.
Task<void> RunOn(asio::any_io_executor executor, Task<void> task);

// A group of tasks that is joined before it dies. Cancel() ends their waits (asio cancellation: Sleep returns early,
// reads fail with kCancelled). Thread-safe.
class TaskScope {
 public:
  explicit TaskScope(asio::any_io_executor executor);
  ~TaskScope();  // checks that Join has completed
  void Spawn(Task<void> task);
  void Cancel();
  bool cancelled() const;
  // Waits until every task has ended. No Spawn after the first Join. From a coroutine or, blocking, from main.
  Task<void> Join();
  void JoinBlocking();
  size_t size() const;

  struct Impl;

 private:
  std::shared_ptr<Impl> impl_;
};

// Waits; kCancelled when the surrounding scope was cancelled meanwhile.
Task<absl::Status> Sleep(absl::Duration duration);

// Wakes waiters: Notify() releases every Wait that is pending, and the next one if none is (auto-reset, one flag).
// Thread-safe.
class Event {
 public:
  explicit Event(asio::any_io_executor executor);
  ~Event();
  void Notify();
  // kOk when notified, kDeadlineExceeded after `timeout`, kCancelled on cancellation.
  Task<absl::Status> Wait(absl::Duration timeout);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// Bounds what is in memory or in flight: units are bytes or sessions. Fair (first come, first served). Thread-safe.
class Budget {
 public:
  Budget(asio::any_io_executor executor, int64_t units);
  ~Budget();
  // Waits until `units` are free (a request above the total is served alone, when everything else is back).
  Task<absl::Status> Acquire(int64_t units);
  void Release(int64_t units);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace poststelle::async
