#include "libs/mail/charset.h"

#include <iconv.h>
#include <uchardet/uchardet.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <map>
#include <memory>

#include "absl/strings/ascii.h"
#include "libs/base/sv.h"

namespace poststelle::mail {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// What is read, in iconv's spelling, and what it is called. The label as browsers read it (WHATWG): latin1 means
// windows-1252. Labels are compared by Key(), so one spelling of each is enough.
struct Charset {
  const char* name;
  const char* labels;  // apart by blanks
};

constexpr Charset kCharsets[] = {
    {"UTF-8", "utf8 utf8mb4 unicode11utf8"},
    {"UTF-7", "utf7 unicode11utf7"},
    {"UTF-16LE", "utf16 utf16le ucs2 iso10646ucs2 unicode"},
    {"UTF-16BE", "utf16be"},
    {"UTF-32", "utf32 ucs4"},
    {"UTF-32LE", "utf32le"},
    {"UTF-32BE", "utf32be"},
    {"WINDOWS-1252",
     "windows1252 cp1252 win1252 1252 iso88591 88591 latin1 isolatin1 l1 usascii ascii us ansi ansix341968 ansix341986 "
     "646 iso646us cp367 ibm367 isoir6 isoir100 cp819 ibm819"},
    {"WINDOWS-1250", "windows1250 cp1250 win1250 1250"},
    {"WINDOWS-1251", "windows1251 cp1251 win1251 1251"},
    {"WINDOWS-1253", "windows1253 cp1253 win1253 1253"},
    {"WINDOWS-1254", "windows1254 cp1254 win1254 1254 iso88599 latin5 isolatin5 l5 isoir148"},
    {"WINDOWS-1255", "windows1255 cp1255 win1255 1255"},
    {"WINDOWS-1256", "windows1256 cp1256 win1256 1256"},
    {"WINDOWS-1257", "windows1257 cp1257 win1257 1257"},
    {"WINDOWS-1258", "windows1258 cp1258 win1258 1258"},
    {"CP874", "windows874 cp874 win874 874 dos874 tis620 iso885911"},
    {"ISO-8859-2", "iso88592 88592 latin2 isolatin2 l2 isoir101"},
    {"ISO-8859-3", "iso88593 88593 latin3 isolatin3 l3 isoir109"},
    {"ISO-8859-4", "iso88594 88594 latin4 isolatin4 l4 isoir110"},
    {"ISO-8859-5", "iso88595 88595 cyrillic isolatincyrillic isoir144"},
    {"ISO-8859-6", "iso88596 iso88596e iso88596i 88596 arabic isolatinarabic asmo708 ecma114 isoir127"},
    {"ISO-8859-7", "iso88597 88597 greek greek8 isolatingreek elot928 ecma118 suneugreek isoir126"},
    {"ISO-8859-8", "iso88598 iso88598e iso88598i 88598 hebrew isolatinhebrew logical visual isoir138"},
    {"ISO-8859-10", "iso885910 latin6 isolatin6 l6 isoir157"},
    {"ISO-8859-13", "iso885913 latin7 l7"},
    {"ISO-8859-14", "iso885914 latin8 l8"},
    {"ISO-8859-15", "iso885915 latin9 isolatin9 l9"},
    {"ISO-8859-16", "iso885916 latin10 l10"},
    {"KOI8-R", "koi8r koi8 koi"},
    {"KOI8-U", "koi8u koi8ru"},
    {"KOI8-T", "koi8t"},
    {"MACINTOSH", "macintosh mac macroman"},
    {"MAC-CYRILLIC", "maccyrillic macukrainian"},
    {"MAC-CENTRALEUROPE", "maccentraleurope macce"},
    {"IBM437", "ibm437 cp437 437"},
    {"IBM850", "ibm850 cp850 850"},
    {"IBM852", "ibm852 cp852 852"},
    {"IBM855", "ibm855 cp855 855"},
    {"IBM857", "ibm857 cp857 857"},
    {"IBM858", "ibm858 cp858 ibm00858 858"},
    {"IBM860", "ibm860 cp860 860"},
    {"IBM861", "ibm861 cp861 861"},
    {"IBM862", "ibm862 cp862 dos862 862"},
    {"IBM863", "ibm863 cp863 863"},
    {"IBM865", "ibm865 cp865 865"},
    {"IBM866", "ibm866 cp866 866"},
    {"GB18030", "gb18030 gb2312 gb231280 gbk gb euccn chinese iso58gb231280 isoir58 cp936 ms936 windows936 936"},
    {"BIG5-HKSCS", "big5 big5hkscs big5hk cnbig5 cp950 windows950 950"},
    {"EUC-TW", "euctw"},
    {"CP949", "cp949 uhc windows949 euckr korean ksc56011987 ksc56011989 ksc5601 ksx1001 isoir149 949"},
    {"JOHAB", "johab cp1361"},
    {"CP932", "cp932 ms932 windows31j windows932 shiftjis sjis mskanji 932"},
    {"EUC-JP", "eucjp ujis eucpkdfmtjapanese"},
    {"ISO-2022-JP-2", "iso2022jp2"},
    {"ISO-2022-JP-3", "iso2022jp iso2022jp1 iso2022jp3 jis cp50220 cp50221 cp50222"},
    {"ISO-2022-KR", "iso2022kr"},
    {"ISO-2022-CN", "iso2022cn"},
    {"VISCII", "viscii"},
    {"TCVN5712-1", "tcvn tcvn57121"},
    {"GEORGIAN-PS", "georgianps"},
    {"GEORGIAN-ACADEMY", "georgianacademy"},
    {"ARMSCII-8", "armscii8"},
    {"HP-ROMAN8", "hproman8 roman8"},
    {"PT154", "pt154 ptcp154 cyrillicasian"},
    {"RK1048", "rk1048 strk10482002"}};

// Lower case letters and digits of a label, without "x-", "cs" and the year behind a colon.
std::string Key(std::string_view label) {
  std::string text = absl::AsciiStrToLower(absl::StripAsciiWhitespace(Av(label)));
  text.erase(std::min(text.size(), std::min(text.find(':'), text.find("//"))));
  std::erase_if(text, [](char c) { return c == '"' || c == '\''; });
  if (text.starts_with("x-")) text.erase(0, 2);
  std::erase_if(text, [](char c) { return !absl::ascii_isalnum(static_cast<unsigned char>(c)); });
  if (text.starts_with("cs")) text.erase(0, 2);
  return text;
}

using CharsetMap = std::map<std::string, std::string, std::less<>>;
CharsetMap& Charsets() {
  static CharsetMap* const charsets = [] {
    auto* all = new CharsetMap;
    for (const Charset& charset : kCharsets) {
      (*all)[Key(charset.name)] = charset.name;
      std::string_view rest = charset.labels;
      while (!rest.empty()) {
        const size_t end = std::min(rest.size(), rest.find(' '));
        (*all)[std::string(rest.substr(0, end))] = charset.name;
        rest.remove_prefix(std::min(rest.size(), end + 1));
      }
    }
    return all;
  }();
  return *charsets;
}

// `charset` as CharsetName() gave it; false if it is empty. `strict` gives up at the first byte that does not fit.
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
  return CharsetName(uchardet_get_charset(detector.get()));
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

// Length of what is bad at `at`: a character that breaks off counts as one (Unicode, U+FFFD for maximal subparts).
size_t BadLength(std::string_view text, size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  if (lead < 0xC2 || lead > 0xF4) return 1;
  const size_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  size_t length = 1;
  while (length < size && at + length < text.size()) {
    const auto c = static_cast<unsigned char>(text[at + length]);
    // The second byte is bound more closely: nothing overlong, no surrogate, nothing above U+10FFFF.
    const unsigned least = length > 1 ? 0x80 : lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const unsigned most = length > 1 ? 0xBF : lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (c < least || c > most) break;
    ++length;
  }
  return length;
}

std::string RepairUtf8(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t size = SequenceLength(text, at);
    if (size == 0) {
      out.append(kReplacement);
      at += BadLength(text, at);
    } else {
      out.append(text.substr(at, size));
      at += size;
    }
  }
  return out;
}

// More characters of UTF-8 than bytes that are none: letters of another charset rarely line up like that.
bool MostlyUtf8(std::string_view text) {
  size_t good = 0;
  size_t bad = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t size = SequenceLength(text, at);
    if (size == 0) ++bad;
    if (size > 1) ++good;
    at += std::max<size_t>(size, 1);
  }
  return good > bad;
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

std::string CharsetName(std::string_view label) {
  const auto it = Charsets().find(Key(label));
  return it == Charsets().end() ? std::string() : it->second;
}

void PreloadCharsets() {
  CharsetMap& charsets = Charsets();
  for (const Charset& charset : kCharsets) {
    // Never closed: glibc unloads a table that nobody uses any more.
    const iconv_t from = iconv_open("UTF-8", charset.name);
    const iconv_t to = iconv_open(charset.name, "UTF-8");
    const iconv_t none = reinterpret_cast<iconv_t>(-1);
    std::string out;
    if (from != none && to != none && Convert("a", charset.name, false, out)) continue;
    std::erase_if(charsets, [&charset](const auto& entry) { return entry.second == charset.name; });
  }
  Detect(
      "Gr\xfc\xdf"
      "e");
}

std::string ToUtf8(std::string_view bytes, std::string_view label) {
  const std::string charset = CharsetName(label);
  const bool utf8 = charset == "UTF-8";
  const bool wide = charset.starts_with("UTF-") && !utf8;
  const bool escapes = (charset.empty() || charset.starts_with("ISO-2022")) && bytes.find('\x1b') != bytes.npos;
  const bool valid = !wide && IsValidUtf8(bytes);
  // Plain ASCII reads the same in every charset left; real UTF-8 does not look valid by accident.
  if (valid && !escapes) return WithoutNul(std::string(bytes));
  // One bad byte must not turn the good ones into something else.
  if (utf8) return WithoutNul(RepairUtf8(bytes));
  std::string out;
  // Characters of several bytes that all fit say more than what looks like UTF-8 among them.
  const bool several = escapes || wide || charset.starts_with("CP9") || charset.starts_with("EUC") ||
                       charset.starts_with("GB") || charset.starts_with("BIG5") || charset == "JOHAB";
  if (several && Convert(bytes, charset, true, out)) return WithoutNul(std::move(out));
  if (!wide && !escapes && MostlyUtf8(bytes)) return WithoutNul(RepairUtf8(bytes));
  if (Convert(bytes, charset, true, out)) return WithoutNul(std::move(out));
  const std::string detected = Detect(bytes);
  if (valid && !detected.starts_with("ISO-2022")) return WithoutNul(std::string(bytes));  // terminal colours
  if (detected == "UTF-8") return WithoutNul(RepairUtf8(bytes));
  if (Convert(bytes, detected, true, out)) return WithoutNul(std::move(out));
  if (Convert(bytes, charset, false, out)) return WithoutNul(std::move(out));
  if (Convert(bytes, "WINDOWS-1252", false, out)) return WithoutNul(std::move(out));
  return WithoutNul(RepairUtf8(bytes));
}

}  // namespace poststelle::mail
