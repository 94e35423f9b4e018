// Tells whether a database answers, so that a service can say that it is not ready.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "libs/async/runtime.h"
#include "libs/sql/database.h"

namespace poststelle::sql {

struct MonitorOptions {
  absl::Duration every = absl::Seconds(1);     // between an answer and the next question
  absl::Duration patience = absl::Seconds(5);  // what takes longer counts as no answer
  int turns = 2;                               // so many answers in a row that differ from what was told are told
};

// Asks a migrated database a small question now and then, one at a time.
class Monitor {
 public:
  // `told` is called with true at once, and at every change, then with the error; on the executor, one call at a time,
  // must not block.
  Monitor(asio::any_io_executor executor, Database& database, MonitorOptions options,
          std::function<void(bool answers, const absl::Status& error)> told);
  ~Monitor();  // Stop()

  void Start();
  // Waits for the question in hand, whose time the database's own limits bound.
  void Stop();

 private:
  async::Task<void> Loop();
  async::Task<absl::Status> NextAnswer();
  async::Task<void> Ask();

  struct Question;
  const std::shared_ptr<Question> question_;
  Database& database_;
  const MonitorOptions options_;
  const std::function<void(bool, const absl::Status&)> told_;
  async::TaskScope scope_;
};

}  // namespace poststelle::sql
