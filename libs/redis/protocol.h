// RESP2: commands to bytes, bytes to answers. No I/O; memory is bounded whatever the server sends.
#pragma once

#include <hiredis/read.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/redis/commands.h"

namespace poststelle::redis {

std::string Format(const std::vector<std::string>& arguments);

// A complete answer; `error` holds Redis' words (code first) when it is an error, or when one lies in the array.
struct Answer {
  Reply reply;
  std::string error;
};

// "MOVED" of "MOVED 42 host:port". The code of an error that a script passed on is found in its middle (Redis 6 wraps
// it).
std::string ErrorCode(std::string_view error);
// The status of an error answer (see Commands), or the reply.
absl::StatusOr<Reply> ToResult(Answer answer);

// Not thread-safe. An error of Next is final: what follows can't be understood.
class AnswerReader {
 public:
  // Limits of one answer. The biggest asked for is CLUSTER SLOTS of a cluster whose slots are scattered.
  static constexpr size_t kMaxBytes = 16 << 20;
  static constexpr size_t kMaxElements = 1 << 18;
  static constexpr size_t kMaxErrorText = 256;  // an error's text is cut there

  AnswerReader();
  void Feed(std::string_view bytes);
  // The next answer, if it is complete. kUnavailable: the server sent what is no RESP2, or more than the limits allow.
  absl::StatusOr<std::optional<Answer>> Next();

  struct Building;

 private:
  struct Delete {
    void operator()(Building* building) const;
  };
  std::unique_ptr<Building, Delete> building_;  // outlives the reader, whose callbacks write into it
  std::unique_ptr<redisReader, decltype(&redisReaderFree)> reader_;
  size_t since_answer_ = 0;  // bytes fed that no complete answer has used yet
};

}  // namespace poststelle::redis
