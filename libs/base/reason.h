// The reason of an error as a word for programs (docs/errors.md), carried by an absl::Status.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/cord.h"

namespace poststelle {

inline constexpr char kReasonUrl[] = "poststelle/reason";

// `status` with `reason` (UPPER_SNAKE); libs/rpc puts it into ErrorInfo.
inline absl::Status WithReason(absl::Status status, const std::string& reason) {
  status.SetPayload(kReasonUrl, absl::Cord(reason));
  return status;
}

// The reason, or empty.
inline std::string ReasonOf(const absl::Status& status) {
  auto payload = status.GetPayload(kReasonUrl);
  return payload ? std::string(*payload) : std::string();
}

}  // namespace poststelle
