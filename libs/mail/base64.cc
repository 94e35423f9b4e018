#include "libs/mail/base64.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "libs/base/base64_line.h"

namespace poststelle::mail {
namespace {

constexpr uint8_t kOther = 0x80;       // the bit that no value of the alphabet has
constexpr ptrdiff_t kLongLine = 1000;  // longer ones are decoded group by group
constexpr uint8_t kBlank = 0x81;
constexpr uint8_t kPad = 0x82;

constexpr std::array<uint8_t, 256> MakeTable() {
  std::array<uint8_t, 256> table{};
  table.fill(kOther);
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < kAlphabet.size(); ++i) table[static_cast<uint8_t>(kAlphabet[i])] = static_cast<uint8_t>(i);
  for (char blank : {' ', '\t', '\r', '\n'}) table[static_cast<uint8_t>(blank)] = kBlank;
  table['='] = kPad;
  return table;
}
constexpr std::array<uint8_t, 256> kTable = MakeTable();

}  // namespace

bool DecodeRegularBase64(std::string_view encoded, std::string& out) {
  const size_t before = out.size();
  out.resize(before + encoded.size() / 4 * 3 + 3 + kBase64Slack);
  const auto* in = reinterpret_cast<const uint8_t*>(encoded.data());
  const auto* const end = in + encoded.size();
  char* to = out.data() + before;
  auto put = [&to](uint32_t group, int bytes) {
    for (int shift = 16; bytes > 0; --bytes, shift -= 8) *to++ = static_cast<char>(group >> shift);
  };
  uint32_t group = 0;
  int in_group = 0;
  int padding = 0;
  bool regular = true;
  const uint8_t* irregular = in;  // up to here a line is decoded group by group
  size_t line = 0;                // letters of the last line that was decoded whole
  while (in < end && regular) {
    // Whole lines, each as long as the one before.
    if (in_group == 0 && padding == 0 && in >= irregular) {
      if (line == 0 || in + line >= end || (in[line] != '\r' && in[line] != '\n')) {
        const void* const feed = std::memchr(in, '\n', static_cast<size_t>(std::min<ptrdiff_t>(end - in, kLongLine)));
        line = feed == nullptr ? 0 : static_cast<size_t>(static_cast<const uint8_t*>(feed) - in);
        if (line > 0 && in[line - 1] == '\r') --line;
      }
      if (line >= kMinBase64Line && line % 4 == 0 && DecodeBase64Line(reinterpret_cast<const char*>(in), line, to)) {
        to += line / 4 * 3;
        in += line + 1;
        if (in < end && in[-1] == '\r' && *in == '\n') ++in;
        continue;
      }
      irregular = in + line;
    }
    // Whole groups within a line.
    while (in_group == 0 && padding == 0 && end - in >= 4) {
      const uint8_t a = kTable[in[0]], b = kTable[in[1]], c = kTable[in[2]], d = kTable[in[3]];
      if (((a | b | c | d) & kOther) != 0) break;
      put(uint32_t{a} << 18 | uint32_t{b} << 12 | uint32_t{c} << 6 | d, 3);
      in += 4;
    }
    if (in == end) break;
    const uint8_t value = kTable[*in++];
    if (value == kBlank) continue;
    if (value == kPad) {
      ++padding;
    } else {
      regular = value < kOther && padding == 0;
    }
    group = group << 6 | (value & 63u);
    if (value == kPad) group &= ~63u;
    if (++in_group < 4) continue;
    regular = regular && padding <= 2;
    // Behind a padded group nothing but blanks may come.
    if (regular) put(group, 3 - padding);
    group = 0;
    in_group = 0;
    if (padding > 0) {
      while (in < end && kTable[*in] == kBlank) ++in;
      regular = regular && in == end;
    }
  }
  if (!regular || in_group != 0) {
    out.resize(before);
    return false;
  }
  out.resize(static_cast<size_t>(to - out.data()));
  return true;
}

}  // namespace poststelle::mail
