// How far a test of a mailbox has come: told step by step, as the proto TestStep.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "libs/probe/texts.h"
#include "poststelle/config/v1/mailbox.pb.h"

namespace poststelle::probe {

// One after the other: a step begins, gathers details, and ends when the next one begins. Used by one coroutine.
class StepLog {
 public:
  // Told each step when it begins and when it ends. Must not block.
  using Sink = std::function<void(const Step&)>;
  StepLog(const config::v1::Mailbox& mailbox, Sink sink);

  // Ends the step that runs, if one does, and begins another.
  void Begin(Step::Kind kind);
  // Adds to what the step that runs has found.
  void Detail(std::string_view text);
  // A word for the texts: {folder}.
  void Say(const std::string& placeholder, const std::string& word) { words_[placeholder] = word; }
  // The step that runs goes well, but a person should know something.
  void Warn(const std::string& reason);
  // The step that runs, or that would have begun first, has failed. Certificate and server's words are taken from the
  // status.
  void Fail(const std::string& reason, const absl::Status& status);
  void End();

  // Of the step that began last.
  Step::Kind kind() const { return step_.kind(); }
  bool failed() const { return step_.outcome() == Step::OUTCOME_FAILED; }
  // As it was told last.
  const Step& step() const { return step_; }

 private:
  void Finish(Step::Outcome outcome);
  Words words_;
  const Sink sink_;
  Step step_;
  absl::Time began_;
};

}  // namespace poststelle::probe
