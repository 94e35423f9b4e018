// Text of a mail to UTF-8, whatever its label says.
#pragma once

#include <string>
#include <string_view>

namespace poststelle::mail {

// Decodes `bytes` labelled `label` (may be empty or wrong): UTF-8 that is valid stays; otherwise the label as browsers
// read it (WHATWG: latin1 means windows-1252), a detected charset, and at last windows-1252. What can't be decoded
// becomes U+FFFD; NUL becomes U+FFFD; nothing is dropped. The result is valid UTF-8.
std::string ToUtf8(std::string_view bytes, std::string_view label);

bool IsValidUtf8(std::string_view text);

}  // namespace poststelle::mail
