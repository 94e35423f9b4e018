// UTF-8, one code point at a time.
#pragma once

#include <cstdint>
#include <string_view>

namespace poststelle {

// The code point of `text` at `at` (< text.size()), which moves behind it; false, and `at` stays, for what is no UTF-8:
// stray or missing bytes, overlong forms, surrogates, above U+10FFFF.
inline bool NextCodePoint(std::string_view text, size_t& at, uint32_t& out) {
  const auto lead = static_cast<unsigned char>(text[at]);
  const int extra = lead < 0x80 ? 0 : lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC2 ? 1 : -1;
  if (extra < 0 || lead > 0xF4 || at + static_cast<size_t>(extra) >= text.size()) return false;
  uint32_t code = extra == 0 ? lead : lead & (0x3F >> extra);
  for (int i = 1; i <= extra; ++i) {
    const auto c = static_cast<unsigned char>(text[at + static_cast<size_t>(i)]);
    if ((c & 0xC0) != 0x80) return false;
    code = code << 6 | (c & 0x3F);
  }
  constexpr uint32_t kSmallest[] = {0, 0x80, 0x800, 0x10000};
  if (code < kSmallest[extra] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return false;
  at += static_cast<size_t>(extra) + 1;
  out = code;
  return true;
}

}  // namespace poststelle
