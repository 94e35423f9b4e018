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
#include "libs/redis/commands.h"
#include "libs/redis/script_hashes.h"

namespace poststelle::redis {

struct Address {
  std::string host;
  uint16_t port = 6379;
  SecretString password;
  int database = 0;
};
// redis://[:password@]host[:port][/database]; the error says what is wrong with it.
absl::StatusOr<Address> ParseUrl(const std::string& url);

// One server. Thread-safe. Connects at once and again after a failure. Errors: see Commands; kUnavailable after
// `kTimeout` without an answer, kResourceExhausted above kMaxPending commands.
class Client : public Commands {
 public:
  static constexpr absl::Duration kTimeout = absl::Seconds(5);
  static constexpr size_t kMaxPending = 10'000;

  Client(asio::any_io_executor executor, net::Dialer& dialer, Address address);
  ~Client() override;  // Stop()
  async::Task<absl::StatusOr<Reply>> Command(std::vector<std::string> arguments) override;
  async::Task<absl::StatusOr<Reply>> Eval(const std::string& script, std::vector<std::string> keys,
                                          std::vector<std::string> arguments) override;
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
  ScriptHashes hashes_;
  async::TaskScope scope_;
};

}  // namespace poststelle::redis
