#include "libs/rpc/drain.h"

#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "absl/strings/str_join.h"
#include "libs/observe/log.h"

namespace poststelle::rpc {

struct DrainWatch::Impl {
  absl::Duration limit;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::string> parts;  // guarded by mutex
  bool over = false;               // guarded by mutex
  std::thread thread;              // last: the rest exists before it runs

  void Run() {
    std::unique_lock lock(mutex);
    if (changed.wait_for(lock, absl::ToChronoMilliseconds(limit), [this] { return over; })) return;
    observe::Log(observe::Level::kError, "service.drain_timeout",
                 {{"limit", absl::FormatDuration(limit)}, {"still", absl::StrJoin(parts, ", ")}});
    _exit(1);
  }
};

DrainWatch::DrainWatch(absl::Duration limit, std::vector<std::string> parts) : impl_(std::make_unique<Impl>()) {
  impl_->limit = limit;
  impl_->parts = std::move(parts);
  impl_->thread = std::thread([impl = impl_.get()] { impl->Run(); });
}

DrainWatch::~DrainWatch() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->over = true;
  }
  impl_->changed.notify_all();
  impl_->thread.join();
}

void DrainWatch::Done() {
  const std::lock_guard lock(impl_->mutex);
  if (!impl_->parts.empty()) impl_->parts.erase(impl_->parts.begin());
}

}  // namespace poststelle::rpc
