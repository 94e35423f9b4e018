// Foreign strings on their way into a command: the only door.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace poststelle::imap {

// A quoted string (RFC 9051 §4.3). InvalidArgument for CR, LF or NUL, which no quoting makes safe.
absl::StatusOr<std::string> Quote(std::string_view text);

// A folder name in modified UTF-7 (RFC 3501 §5.1.3), quoted. InvalidArgument for invalid UTF-8 or control characters.
absl::StatusOr<std::string> QuoteFolder(std::string_view utf8);

// "1:3,7" of ascending UIDs, in pieces of at most `max_ranges` ranges.
std::vector<std::string> SequenceSets(std::vector<uint32_t> uids, size_t max_ranges);

}  // namespace poststelle::imap
