// What a failed poll means: the reason a person reads, and when to try again. Protocol code reports, this file decides.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "libs/base/reason.h"
#include "poststelle/config/v1/mailbox.pb.h"

namespace poststelle::fetcher {

struct Failure {
  std::string reason;        // UPPER_SNAKE; docs/errors.md lists them
  std::string reason_text;   // what, where, and what to do
  bool credentials = false;  // rejected sign-in: wait much longer, so that the account is not locked out
  bool settings = false;     // only a change of settings helps: nothing is gained by trying often
  bool ours = false;         // the mail server is not to blame: come again as soon as what failed here may be back
};

// The reason of a failure, as docs/errors.md lists them.
std::string FailureReason(const absl::Status& status);

// Turns the status of a failed poll of `mailbox` into its reason.
Failure Classify(const absl::Status& status, const config::v1::Mailbox& mailbox);

// When to poll again after `failures` failures in a row: the interval, doubled each time up to 30 minutes; after
// rejected credentials from 5 minutes up to 6 hours, after an address that is not allowed from 5 minutes up to 30 (a
// change of the mailbox resets all of them); after a failure of our own at most 10 seconds.
absl::Duration RetryDelay(const Failure& failure, int failures, absl::Duration interval);

}  // namespace poststelle::fetcher
