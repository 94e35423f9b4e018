// How many connections all workers together keep to a mail host and to an account (providers count, and lock out).
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "libs/async/runtime.h"
#include "libs/redis/commands.h"

namespace poststelle::lease {

struct ConnectionLimitOptions {
  int per_host = 10;
  int per_account = 3;
  absl::Duration lease = absl::Seconds(10);  // a worker that died stops counting after this
};

// Counts in Redis, one entry a worker and key with an expiry, so that a dead worker's connections are forgotten. What a
// worker has been granted it keeps for a moment after use, so that a busy host costs no command a poll. While Redis is
// away each worker keeps to the limits by itself. Thread-safe.
class ConnectionLimits {
 public:
  ConnectionLimits(asio::any_io_executor executor, redis::Commands& redis, std::string holder,
                   ConnectionLimitOptions options);
  ~ConnectionLimits();

  // A connection's right to exist; given back when it dies.
  class Permit {
   public:
    Permit();
    Permit(Permit&&) noexcept;
    Permit& operator=(Permit&&) noexcept;
    ~Permit();

   private:
    friend class ConnectionLimits;
    struct Slot;
    std::unique_ptr<Slot> account_;
    std::unique_ptr<Slot> host_;
  };
  // Waits up to `patience` for a place at `host` (lower case) and at `account` (unique with its host).
  // kResourceExhausted when there is none by then, or when so many wait here already that this one would only be in the
  // way: come again later. kCancelled on cancellation.
  async::Task<absl::StatusOr<Permit>> Acquire(std::string host, std::string account, absl::Duration patience);

  // Renews what is in use and gives back what is not; call it about three times a lease.
  async::Task<void> Sweep();

 private:
  struct State;
  async::Task<absl::StatusOr<int>> Ask(const std::string& key, int want, int limit);
  async::Task<bool> TakeOne(const std::string& key, int limit);
  std::shared_ptr<State> state_;
  redis::Commands& redis_;
  const std::string holder_;
  const ConnectionLimitOptions options_;
};

}  // namespace poststelle::lease
