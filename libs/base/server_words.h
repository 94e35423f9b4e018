// What a foreign server said, carried by an absl::Status beside the sentence: not everybody may see it.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "libs/base/printable.h"

namespace poststelle {

inline constexpr char kServerWordsUrl[] = "poststelle/server-words";
inline constexpr size_t kMaxServerWords = 500;  // bytes

// `status` with the server's words, shortened and without control characters. Secrets are the caller's to remove first.
inline absl::Status WithServerWords(absl::Status status, std::string_view words) {
  status.SetPayload(kServerWordsUrl, absl::Cord(Printable(words, kMaxServerWords)));
  return status;
}

// The words, or empty.
inline std::string ServerWordsOf(const absl::Status& status) {
  auto payload = status.GetPayload(kServerWordsUrl);
  return payload ? std::string(*payload) : std::string();
}

}  // namespace poststelle
