// Redis for coroutines: one connection, commands of many callers pipelined over it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"
#include "libs/base/secret_string.h"
#include "libs/net/dialer.h"

namespace poststelle::redis {

struct Address {
  std::string host;
  uint16_t port = 6379;
  SecretString password;
  int database = 0;
};
// redis://[:password@]host[:port][/database]; the error says what is wrong with it.
absl::StatusOr<Address> ParseUrl(const std::string& url);

// An answer. An error answer is never one of these but a failed status with Redis' words.
struct Reply {
  enum class Kind { kNil, kInteger, kString, kArray };
  Kind kind = Kind::kNil;
  int64_t integer = 0;
  std::string string;
  std::vector<Reply> array;
};

// Thread-safe. Connects at first use and again after a failure. Errors: kUnavailable for everything that concerns the
// connection (also for LOADING, READONLY, MOVED and the like, which pass), kDeadlineExceeded after `kTimeout`,
// kResourceExhausted above kMaxPending commands, kNotFound for NOSCRIPT, kInternal for any other error answer. A
// command that failed may have been carried out: what is sent here must be repeatable.
class Client {
 public:
  static constexpr absl::Duration kTimeout = absl::Seconds(5);
  static constexpr size_t kMaxPending = 10'000;

  Client(asio::any_io_executor executor, net::Dialer& dialer, Address address);
  ~Client();  // Stop()
  async::Task<absl::StatusOr<Reply>> Command(std::vector<std::string> arguments);
  // Runs a Lua script by its hash; sends its text where Redis does not know it (any more).
  async::Task<absl::StatusOr<Reply>> Eval(const std::string& script, std::vector<std::string> keys,
                                          std::vector<std::string> arguments);
  // Fails what is pending and ends the connection. Blocking; not from a coroutine.
  void Stop();

 private:
  struct Pending;
  struct Connection;
  async::Task<void> Serve();
  async::Task<absl::Status> Open(Connection& connection);
  async::Task<absl::Status> Exchange(Connection& connection);

  struct State;
  std::shared_ptr<State> state_;
  net::Dialer& dialer_;
  const Address address_;
  async::TaskScope scope_;
};

}  // namespace poststelle::redis
