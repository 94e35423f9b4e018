#include "libs/mail/charset.h"

#include <iconv.h>
#include <uchardet/uchardet.h>

#include <cerrno>
#include <map>
#include <memory>

#include "absl/strings/ascii.h"
#include "libs/base/sv.h"

namespace poststelle::mail {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// The label as browsers read it, in iconv's spelling.
std::string Canonical(std::string_view label) {
  static const std::map<std::string, std::string> kNames = {{"us-ascii", "WINDOWS-1252"},
                                                            {"ascii", "WINDOWS-1252"},
                                                            {"ansi", "WINDOWS-1252"},
                                                            {"iso-8859-1", "WINDOWS-1252"},
                                                            {"iso8859-1", "WINDOWS-1252"},
                                                            {"latin1", "WINDOWS-1252"},
                                                            {"l1", "WINDOWS-1252"},
                                                            {"ansi_x3.4-1968", "WINDOWS-1252"},
                                                            {"cp1252", "WINDOWS-1252"},
                                                            {"x-cp1252", "WINDOWS-1252"},
                                                            {"iso-8859-9", "WINDOWS-1254"},
                                                            {"latin5", "WINDOWS-1254"},
                                                            {"iso-8859-11", "WINDOWS-874"},
                                                            {"tis-620", "WINDOWS-874"},
                                                            {"gb2312", "GB18030"},
                                                            {"gbk", "GB18030"},
                                                            {"x-gbk", "GB18030"},
                                                            {"ks_c_5601-1987", "CP949"},
                                                            {"ks_c_5601-1989", "CP949"},
                                                            {"ks_c_5601", "CP949"},
                                                            {"euc-kr", "CP949"},
                                                            {"korean", "CP949"},
                                                            {"shift_jis", "CP932"},
                                                            {"shift-jis", "CP932"},
                                                            {"sjis", "CP932"},
                                                            {"x-sjis", "CP932"},
                                                            {"windows-31j", "CP932"},
                                                            {"iso-2022-jp", "ISO-2022-JP-3"},
                                                            {"utf8", "UTF-8"},
                                                            {"unicode-1-1-utf-8", "UTF-8"},
                                                            {"utf-16", "UTF-16LE"},
                                                            {"iso-8859-8-i", "ISO-8859-8"},
                                                            {"big5", "BIG5-HKSCS"},
                                                            {"x-mac-roman", "MACINTOSH"},
                                                            {"macintosh", "MACINTOSH"},
                                                            {"koi8-ru", "KOI8-U"}};
  std::string key = absl::AsciiStrToLower(absl::StripAsciiWhitespace(Av(label)));
  while (!key.empty() && (key.back() == '"' || key.back() == '\'' || key.back() == ';')) key.pop_back();
  while (!key.empty() && (key.front() == '"' || key.front() == '\'')) key.erase(0, 1);
  auto it = kNames.find(key);
  return it == kNames.end() ? key : it->second;
}

// False if iconv knows no such charset. `strict` gives up at the first byte that does not fit.
bool Convert(std::string_view bytes, const std::string& charset, bool strict, std::string& out) {
  if (charset.empty()) return false;
  iconv_t cd = iconv_open("UTF-8", charset.c_str());
  if (cd == reinterpret_cast<iconv_t>(-1)) return false;
  out.clear();
  char* in = const_cast<char*>(bytes.data());
  size_t left = bytes.size();
  char buffer[4096];
  bool fits = true;
  while (left > 0) {
    char* to = buffer;
    size_t room = sizeof buffer;
    const size_t rc = iconv(cd, &in, &left, &to, &room);
    out.append(buffer, sizeof buffer - room);
    if (rc != static_cast<size_t>(-1) || errno == E2BIG) continue;
    fits = false;
    if (strict) break;
    out.append(kReplacement);
    ++in;
    --left;
  }
  char* to = buffer;
  size_t room = sizeof buffer;
  iconv(cd, nullptr, nullptr, &to, &room);
  out.append(buffer, sizeof buffer - room);
  iconv_close(cd);
  return fits || !strict;
}

std::string Detect(std::string_view bytes) {
  const std::unique_ptr<uchardet, decltype(&uchardet_delete)> detector(uchardet_new(), uchardet_delete);
  uchardet_handle_data(detector.get(), bytes.data(), bytes.size());
  uchardet_data_end(detector.get());
  return Canonical(uchardet_get_charset(detector.get()));
}

std::string WithoutNul(std::string text) {
  size_t at = 0;
  while ((at = text.find('\0', at)) != std::string::npos) {
    text.replace(at, 1, kReplacement);
    at += kReplacement.size();
  }
  return text;
}

// Length of the valid UTF-8 sequence at `at`, or 0.
size_t SequenceLength(std::string_view text, size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  if (lead < 0x80) return 1;
  const size_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || at + size > text.size()) return 0;
  uint32_t code = lead & (0x7F >> size);
  for (size_t i = 1; i < size; ++i) {
    const auto c = static_cast<unsigned char>(text[at + i]);
    if ((c & 0xC0) != 0x80) return 0;
    code = code << 6 | (c & 0x3F);
  }
  static constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  return code < kLeast[size] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF) ? 0 : size;
}

std::string RepairUtf8(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t size = SequenceLength(text, at);
    if (size == 0) {
      out.append(kReplacement);
      ++at;
    } else {
      out.append(text.substr(at, size));
      at += size;
    }
  }
  return out;
}

}  // namespace

bool IsValidUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t size = SequenceLength(text, at);
    if (size == 0) return false;
    at += size;
  }
  return true;
}

std::string ToUtf8(std::string_view bytes, std::string_view label) {
  const std::string charset = Canonical(label);
  const bool escapes = bytes.find('\x1b') != std::string_view::npos;
  const bool wide = charset.starts_with("UTF-16") || charset.starts_with("utf-16") || charset.starts_with("utf-32") ||
                    charset == "utf-7" || escapes;
  if (!wide && IsValidUtf8(bytes)) {
    // Plain ASCII reads the same in every charset left; real UTF-8 does not look valid by accident.
    return WithoutNul(std::string(bytes));
  }
  std::string out;
  if (Convert(bytes, charset, true, out)) return WithoutNul(std::move(out));
  const bool mostly_utf8 = charset == "UTF-8" || charset == "utf-8";
  const std::string detected = Detect(bytes);
  if (detected != "UTF-8" && Convert(bytes, detected, true, out)) return WithoutNul(std::move(out));
  if (mostly_utf8 && detected == "UTF-8") return WithoutNul(RepairUtf8(bytes));
  if (!charset.empty() && !mostly_utf8 && Convert(bytes, charset, false, out)) return WithoutNul(std::move(out));
  if (Convert(bytes, "WINDOWS-1252", false, out)) return WithoutNul(std::move(out));
  return WithoutNul(RepairUtf8(bytes));
}

}  // namespace poststelle::mail
