#include "libs/imap/quote.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "libs/base/status_macros.h"
#include "libs/base/utf8.h"

namespace poststelle::imap {
namespace {

void AppendUtf16(std::string& out, uint32_t code) {
  auto unit = [&out](uint32_t u) {
    out.push_back(static_cast<char>(u >> 8));
    out.push_back(static_cast<char>(u & 0xFF));
  };
  if (code < 0x10000) {
    unit(code);
  } else {
    unit(0xD800 + ((code - 0x10000) >> 10));
    unit(0xDC00 + ((code - 0x10000) & 0x3FF));
  }
}

// Base64 with "," for "/" and without padding.
std::string ModifiedBase64(std::string_view bytes) {
  static constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";
  std::string out;
  uint32_t buffer = 0;
  int bits = 0;
  for (unsigned char c : bytes) {
    buffer = (buffer << 8 | c) & 0xFFFFFF;
    bits += 8;
    while (bits >= 6) {
      bits -= 6;
      out.push_back(kAlphabet[(buffer >> bits) & 63]);
    }
  }
  if (bits > 0) out.push_back(kAlphabet[(buffer << (6 - bits)) & 63]);
  return out;
}

}  // namespace

absl::StatusOr<std::string> Quote(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '\r' || c == '\n' || c == '\0')
      return absl::InvalidArgumentError("a line break or NUL can't be sent to a mail server");
    if (c == '"' || c == '\\') out.push_back('\\');
    out.push_back(c);
  }
  out.push_back('"');
  return out;
}

absl::StatusOr<std::string> QuoteFolder(std::string_view utf8) {
  std::string encoded;
  std::string pending;  // UTF-16 of what needs encoding
  auto flush = [&] {
    if (!pending.empty()) absl::StrAppend(&encoded, "&", ModifiedBase64(pending), "-");
    pending.clear();
  };
  size_t at = 0;
  while (at < utf8.size()) {
    uint32_t code = 0;
    if (!NextCodePoint(utf8, at, code) || code < 0x20)
      return absl::InvalidArgumentError("the folder name is no valid text");
    if (code > 0x7E) {
      AppendUtf16(pending, code);
      continue;
    }
    flush();
    encoded.push_back(static_cast<char>(code));
    if (code == '&') encoded.push_back('-');
  }
  flush();
  return Quote(encoded);
}

std::vector<std::string> SequenceSets(std::vector<uint32_t> uids, size_t max_ranges) {
  std::sort(uids.begin(), uids.end());
  uids.erase(std::unique(uids.begin(), uids.end()), uids.end());
  std::vector<std::string> out;
  size_t ranges = 0;
  for (size_t i = 0; i < uids.size();) {
    size_t j = i;
    while (j + 1 < uids.size() && uids[j + 1] == uids[j] + 1) ++j;
    if (ranges % max_ranges == 0) out.emplace_back();
    ++ranges;
    std::string& set = out.back();
    absl::StrAppend(&set, set.empty() ? "" : ",", uids[i]);
    if (j > i) absl::StrAppend(&set, ":", uids[j]);
    i = j + 1;
  }
  return out;
}

}  // namespace poststelle::imap
