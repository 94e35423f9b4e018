// A connection to one Redis server: dialled, encrypted where asked for, signed in.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"
#include "libs/net/dialer.h"
#include "libs/redis/address.h"
#include "libs/redis/protocol.h"

namespace poststelle::redis {

// Used by one coroutine at a time. Any failure of Call is final.
class Connection {
 public:
  // To `endpoint`, with TLS, user and database of `address`; `deadline` bounds it all. Ends with a PING, so a
  // connection is one that answers: errors are kUnavailable (no connection, LOADING, BUSY) and kFailedPrecondition
  // (user or password refused, wrong database). No error holds the password.
  static async::Task<absl::StatusOr<std::unique_ptr<Connection>>> Open(net::Dialer& dialer, const Address& address,
                                                                       Endpoint endpoint, absl::Time deadline);
  // One command and its answer, with nothing else under way.
  async::Task<absl::StatusOr<Answer>> Call(std::vector<std::string> arguments, absl::Time deadline);
  net::Stream& stream() { return *stream_; }
  AnswerReader& reader() { return reader_; }

 private:
  explicit Connection(std::unique_ptr<net::Stream> stream) : stream_(std::move(stream)) {}
  async::Task<absl::Status> Greet(const Address& address, absl::Time deadline);

  std::unique_ptr<net::Stream> stream_;
  AnswerReader reader_;
};

}  // namespace poststelle::redis
