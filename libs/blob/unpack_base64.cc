#include "libs/blob/unpack_base64.h"

#include <algorithm>
#include <cstdint>
#include <memory>

#include "libs/base/base64_line.h"

namespace poststelle::blob {
namespace {

// The form: again and again a header, so many bytes as they are, and so many decoded lines.
struct Header {
  uint32_t plain = 0;    // bytes
  uint32_t lines = 0;    // base64 lines behind them
  uint32_t letters = 0;  // of each line, a multiple of four; 0 where there is none
};
constexpr size_t kHeaderBytes = 12;
constexpr size_t kMaxLetters = 996;  // RFC 5322 §2.1.1: a line has at most 998 characters
constexpr size_t kMinLines = 4;      // fewer do not pay for their header

void AppendNumber(uint32_t number, std::string& out) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(number >> shift));
}
uint32_t NumberAt(const char* at) {
  uint32_t number = 0;
  for (int i = 0; i < 4; ++i) number = number << 8 | static_cast<uint8_t>(at[i]);
  return number;
}

// Room for what a text decodes to, kept from one to the next: clearing it anew costs as much as decoding.
class Room {
 public:
  char* For(std::string_view text) {
    const size_t needed = text.size() / 4 * 3 + kBase64Slack;
    if (needed > size_) {
      bytes_.reset(new char[needed]);
      size_ = needed;
    }
    return bytes_.get();
  }

 private:
  std::unique_ptr<char[]> bytes_;
  size_t size_ = 0;
};

// Decodes the lines of `letters` letters that `text` begins with; returns how many. `out` has room for all of them.
size_t DecodeLines(std::string_view text, size_t letters, char* out) {
  const size_t most = text.size() / (letters + 2);
  size_t lines = 0;
  for (const char* at = text.data(); lines < most; ++lines, at += letters + 2, out += letters / 4 * 3) {
    if (at[letters] != '\r' || at[letters + 1] != '\n') break;
    if (!DecodeBase64Line(at, letters, out)) break;
  }
  return lines;
}

}  // namespace

bool UnpackBase64(std::string_view text, std::string& out, bool anyway) {
  size_t plain = 0;    // where what is to be kept as it is begins
  size_t at = 0;       // a line starts here
  size_t decoded = 0;  // bytes of base64
  thread_local Room room;
  char* const lines = room.For(text);
  out.clear();
  const auto append = [&](const Header& header) {
    AppendNumber(header.plain, out);
    AppendNumber(header.lines, out);
    AppendNumber(header.letters, out);
    out.append(text, plain, header.plain);
  };
  while (at < text.size()) {
    const size_t end = text.find('\n', at);
    if (end == std::string_view::npos) break;
    const size_t letters = end > at ? end - at - 1 : 0;  // without CR
    if (letters % 4 == 0 && letters >= kMinBase64Line && letters <= kMaxLetters) {
      const size_t count = DecodeLines(text.substr(at), letters, lines);
      if (count >= kMinLines) {
        append({static_cast<uint32_t>(at - plain), static_cast<uint32_t>(count), static_cast<uint32_t>(letters)});
        out.append(lines, count * (letters / 4 * 3));
        decoded += count * (letters + 2);
        plain = at += count * (letters + 2);
        continue;
      }
    }
    at = end + 1;
  }
  if ((decoded == 0 || decoded < text.size() / 4) && !anyway) {
    out.clear();
    return false;
  }
  append({static_cast<uint32_t>(text.size() - plain), 0, 0});
  return true;
}

bool RepackBase64(std::string_view unpacked, size_t limit, std::string& text) {
  const size_t before = text.size();
  while (!unpacked.empty()) {
    if (unpacked.size() < kHeaderBytes) return false;
    const Header header{NumberAt(unpacked.data()), NumberAt(unpacked.data() + 4), NumberAt(unpacked.data() + 8)};
    unpacked.remove_prefix(kHeaderBytes);
    if (header.letters % 4 != 0 || header.letters > kMaxLetters) return false;
    const size_t bytes = header.letters / 4 * 3;
    const size_t whole = text.size() - before + header.plain + uint64_t{header.lines} * (header.letters + 2);
    if (whole > limit || unpacked.size() < header.plain + uint64_t{header.lines} * bytes) return false;
    text.append(unpacked.substr(0, header.plain));
    unpacked.remove_prefix(header.plain);
    for (uint32_t i = 0; i < header.lines; ++i) {
      const size_t at = text.size();
      text.resize(at + header.letters + 2);
      EncodeBase64Line(unpacked.data(), bytes, text.data() + at);
      text[at + header.letters] = '\r';
      text[at + header.letters + 1] = '\n';
      unpacked.remove_prefix(bytes);
    }
  }
  return true;
}

}  // namespace poststelle::blob
