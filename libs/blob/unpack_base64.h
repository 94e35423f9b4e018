// Attachments as the bytes that they were: base64 takes a third more, and what an entropy coder wins back of it costs
// most of the time of a compression.
#pragma once

#include <string>
#include <string_view>

namespace poststelle::blob {

// What the unpacked form may have more than the text: the header of its end.
inline constexpr size_t kMaxUnpackedGrowth = 12;

// Sets `out` to a form of `text` in which runs of equally long base64 lines (ended by CRLF) are decoded. False, and
// `out` is empty, if there is too little of them to be worth it, unless it is wanted `anyway`.
bool UnpackBase64(std::string_view text, std::string& out, bool anyway = false);

// The exact text again, appended to `text`. False if `unpacked` is malformed or means more than `limit` bytes.
bool RepackBase64(std::string_view unpacked, size_t limit, std::string& text);

}  // namespace poststelle::blob
