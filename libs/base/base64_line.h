// One line of base64 at a time, as fast as the processor can.
#pragma once

#include <cstddef>

namespace poststelle {

// A line of base64 without its end: whole groups of four letters of the alphabet, no padding.
inline constexpr size_t kMinBase64Line = 32;
// What DecodeBase64Line may write beyond the decoded bytes.
inline constexpr size_t kBase64Slack = 8;

// Decodes `size` letters, at least kMinBase64Line and a multiple of four, into `size / 4 * 3` bytes. False, and the
// room at `out` undefined, if there is anything but letters of the alphabet.
bool DecodeBase64Line(const char* in, size_t size, char* out);

// The reverse: `size` bytes, a multiple of three, into `size / 3 * 4` letters.
void EncodeBase64Line(const char* in, size_t size, char* out);

}  // namespace poststelle
