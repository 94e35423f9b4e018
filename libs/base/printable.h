// Foreign text, fit for a log, a message or a table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "libs/base/utf8.h"

namespace poststelle {

inline bool IsPrintable(uint32_t c) {
  if (c < 0x20 || (c >= 0x7F && c < 0xA0)) return false;
  const bool separator = c == 0x2028 || c == 0x2029;
  const bool direction =
      c == 0x061C || c == 0x200E || c == 0x200F || (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
  return !separator && !direction && c != 0xFEFF;
}

// `text` as valid UTF-8 without control characters and without those that turn the direction of what stands around
// them; bytes that are no UTF-8 become "?". At most `max_bytes`, whole characters.
inline std::string Printable(std::string_view text, size_t max_bytes) {
  std::string out;
  size_t at = 0;
  while (at < text.size() && out.size() < max_bytes) {
    const size_t begin = at;
    uint32_t code = 0;
    if (!NextCodePoint(text, at, code)) {
      out.push_back('?');
      ++at;
    } else if (IsPrintable(code)) {
      if (out.size() + at - begin > max_bytes) break;
      out.append(text.substr(begin, at - begin));
    }
  }
  return out;
}

}  // namespace poststelle
