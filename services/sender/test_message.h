// The mail that a test sends.
#pragma once

#include <string>

#include "absl/time/time.h"

namespace poststelle::sender {

// A short text/plain message in German and English from `from` to `to`, both addresses; `mailbox` is its display name.
// Auto-Submitted says that nobody should answer by machine (RFC 3834). Lines end in CRLF; a foreign name in it can't
// begin a header.
std::string TestMessage(const std::string& from, const std::string& to, const std::string& mailbox, absl::Time now,
                        const std::string& message_id);

}  // namespace poststelle::sender
