// Small questions about texts that callers send.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

namespace poststelle {

// Whether there is a control character (of ASCII: NUL, CR, LF, …) in it.
inline bool HasControl(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; });
}

// Something of a request, fit to be repeated in an answer: errors travel in headers, where long ones do not fit.
inline std::string Shown(std::string_view text) {
  return text.size() <= 63 && !HasControl(text) ? std::string(text) : "(not shown)";
}

}  // namespace poststelle
