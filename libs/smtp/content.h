// A message's bytes on their way into DATA or BDAT: what it needs, and one form of line ends.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace poststelle::smtp {

// RFC 5321 §4.5.3.1.6, without CRLF.
inline constexpr size_t kMaxTextLine = 998;

struct ContentTraits {
  bool canonical = true;          // every line ends in CRLF, the last one too, and there is no other CR or LF
  bool eight_bit = false;         // bytes above 127: BODY=8BITMIME
  bool eight_bit_header = false;  // … in its header section (up to the first empty line): SMTPUTF8
  bool nul = false;
  size_t longest_line = 0;  // bytes without its end
};
// One pass over the bytes; a line ends at CRLF, or at a CR or LF alone.
ContentTraits ScanContent(std::string_view message);

// Whether SMTP can carry it as it is: no NUL, no line above kMaxTextLine. kUnfit (at MAIL) says why not. To be asked
// before a message is accepted from somebody: Session::Send refuses the same.
absl::Status CheckContent(const ContentTraits& traits);

// Every bare CR and bare LF becomes CRLF, and the last line ends in CRLF. So no byte sequence that one server takes for
// the end of the message and another does not (SMTP smuggling, VU#302671) leaves us. Equal bytes give equal bytes.
std::string Canonical(std::string_view message);

// Appends message[begin, end) of a canonical message to `out` with a dot before each line that begins with one
// (RFC 5321 §4.5.2). `begin` may be anywhere.
void AppendDotStuffed(std::string_view message, size_t begin, size_t end, std::string& out);

}  // namespace poststelle::smtp
