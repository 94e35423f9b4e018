#include "libs/mail/scan.h"

#include <gmime/gmime.h>

#include <algorithm>
#include <functional>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "libs/base/sv.h"
#include "libs/mail/charset.h"
#include "libs/mail/origin.h"

namespace poststelle::mail {
namespace {

// Calls `f` with each line (without its end) until it answers false.
void EachLine(std::string_view text, const std::function<bool(std::string_view)>& f) {
  size_t at = 0;
  while (at < text.size()) {
    size_t end = text.find('\n', at);
    if (end == std::string_view::npos) end = text.size();
    std::string_view line = text.substr(at, end - at);
    if (line.ends_with('\r')) line.remove_suffix(1);
    at = end + 1;
    if (!f(line)) return;
  }
}

bool HasField(std::string_view line, std::string_view name) {
  return line.size() > name.size() && absl::StartsWithIgnoreCase(Av(line), Av(name)) &&
         (line[name.size()] == ':' || line[name.size()] == ' ' || line[name.size()] == '\t');
}

// Parameter names outside ASCII send g_mime_content_type_encode into a loop (jstedfast/gmime#165). Comments may hold
// what they like, unless one is never closed: then its reader may see something else than we do.
bool StrangeParameters(std::string_view value) {
  size_t names = 0;
  bool quoted = false;
  bool in_name = false;
  size_t comments = 0;
  bool strange_comment = false;
  for (size_t i = 0; i < value.size(); ++i) {
    const char c = value[i];
    if (c == '\\' && (quoted || comments > 0)) {
      ++i;
    } else if (comments > 0) {
      if (c == '(') ++comments;
      if (c == ')') --comments;
      strange_comment |= static_cast<unsigned char>(c) >= 0x80;
    } else if (c == '"') {
      quoted = !quoted;
    } else if (quoted) {
      continue;
    } else if (c == '(') {
      ++comments;
      strange_comment = false;
    } else if (c == ';') {
      in_name = true;
      ++names;
    } else if (c == '=') {
      in_name = false;
    } else if (in_name && static_cast<unsigned char>(c) >= 0x80) {
      return true;
    }
  }
  return names > 1000 || (comments > 0 && strange_comment);
}

// Fields that GMime reads as lists of addresses, at once, when it meets them.
constexpr std::string_view kAddressFields[] = {"From",        "To",
                                               "Cc",          "Bcc",
                                               "Reply-To",    "Sender",
                                               "Resent-From", "Resent-To",
                                               "Resent-Cc",   "Mail-Followup-To",
                                               "Return-Path", "Disposition-Notification-To"};

bool IsAddressField(std::string_view line) {
  return line.find(':') != std::string_view::npos &&
         std::any_of(std::begin(kAddressFields), std::end(kAddressFields),
                     [line](std::string_view name) { return HasField(line, name); });
}

size_t Colons(std::string_view text) { return static_cast<size_t>(std::count(text.begin(), text.end(), ':')); }

// ISO 8601, as programs write it that do not know mail: `2024-05-01 10:00:00 +0200`, `2024-05-01T10:00:00Z`.
bool IsoDate(std::string_view value, int64_t& unix_seconds) {
  std::string text(value.substr(0, value.find('(')));
  if (text.size() < 16 || text[4] != '-' || text[7] != '-') return false;
  if (text[10] == 'T' || text[10] == 't') text[10] = ' ';
  for (const char* format :
       {"%Y-%m-%d %H:%M:%E*S %Ez", "%Y-%m-%d %H:%M %Ez", "%Y-%m-%d %H:%M:%E*S", "%Y-%m-%d %H:%M:%E*S UTC",
        "%Y-%m-%d %H:%M:%E*S GMT", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M UTC", "%Y-%m-%d %H:%M GMT"}) {
    absl::Time time;
    if (!absl::ParseTime(format, text, &time, nullptr)) continue;
    unix_seconds = absl::ToUnixSeconds(time);
    return true;
  }
  return false;
}

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = static_cast<char>(absl::ascii_tolower(static_cast<unsigned char>(c)));
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

std::string DecodeQ(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '_') {
      out.push_back(' ');
    } else if (text[i] == '=' && i + 2 < text.size() && HexValue(text[i + 1]) >= 0 && HexValue(text[i + 2]) >= 0) {
      out.push_back(static_cast<char>(HexValue(text[i + 1]) * 16 + HexValue(text[i + 2])));
      i += 2;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

// Base64 as mails have it: what is no digit is skipped, padding may be missing, or stand in the middle where somebody
// has put two texts together.
std::string DecodeB(std::string_view text) {
  std::string out;
  std::string clean;
  auto flush = [&] {
    if (clean.size() % 4 == 1) clean.pop_back();
    std::string bytes;
    absl::Base64Unescape(clean, &bytes);
    out += bytes;
    clean.clear();
  };
  for (char c : text) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '+' || c == '/') clean.push_back(c);
    if (c == '=') flush();
  }
  flush();
  return out;
}

struct EncodedWord {
  std::string charset;
  std::string bytes;
  size_t end = 0;  // behind "?="
};

bool ParseEncodedWord(std::string_view value, size_t at, EncodedWord& out) {
  const size_t charset_end = value.find('?', at + 2);
  if (charset_end == std::string_view::npos || charset_end + 2 >= value.size() || value[charset_end + 2] != '?')
    return false;
  const char encoding = static_cast<char>(absl::ascii_tolower(static_cast<unsigned char>(value[charset_end + 1])));
  const size_t end = value.find("?=", charset_end + 3);
  if (end == std::string_view::npos || (encoding != 'b' && encoding != 'q')) return false;
  std::string_view charset = value.substr(at + 2, charset_end - at - 2);
  charset = charset.substr(0, charset.find('*'));  // RFC 2231 §5: a language behind an asterisk
  if (charset.empty() || charset.find_first_of(" \t") != std::string_view::npos) return false;
  out.charset = absl::AsciiStrToLower(Av(charset));
  const std::string_view text = value.substr(charset_end + 3, end - charset_end - 3);
  out.bytes = encoding == 'b' ? DecodeB(text) : DecodeQ(text);
  out.end = end + 2;
  return true;
}

// `Joe Bar j@x.de`, an address without angle brackets behind a name. False if it is something else.
bool SplitBare(std::string_view piece, std::string_view& name, std::string_view& address) {
  piece = Sv(absl::StripAsciiWhitespace(Av(piece)));
  const size_t blank = piece.find_last_of(" \t\r\n");
  if (blank == std::string_view::npos || piece.find_first_of("<>(") != std::string_view::npos) return false;
  const std::string_view front = piece.substr(0, blank);
  const std::string_view back = piece.substr(blank + 1);
  if (back.find('@') == std::string_view::npos || back.find('"') != std::string_view::npos ||
      front.find('@') != std::string_view::npos || std::count(front.begin(), front.end(), '"') % 2 != 0) {
    return false;
  }
  name = front;
  address = back;
  return true;
}

void AddAddresses(const std::string& value, google::protobuf::RepeatedPtrField<Address>* out, size_t limit) {
  // Only what has the plainest form: this scan reads mails that are out of bounds.
  size_t begin = 0;
  bool quoted = false;
  auto add = [&](std::string_view piece) {
    if (static_cast<size_t>(out->size()) >= limit) return;
    const size_t open = piece.rfind('<');
    const size_t close = piece.rfind('>');
    std::string_view address = piece;
    std::string_view name;
    if (open != std::string_view::npos && close != std::string_view::npos && close > open) {
      address = piece.substr(open + 1, close - open - 1);
      name = piece.substr(0, open);
    } else {
      SplitBare(piece, name, address);
    }
    const std::string trimmed(absl::StripAsciiWhitespace(Av(address)));
    if (trimmed.find('@') == std::string::npos || trimmed.size() > 320) return;
    Address* a = out->Add();
    a->set_address(ToUtf8(trimmed, ""));
    std::string decoded = DecodeHeader(name);
    decoded.erase(std::remove(decoded.begin(), decoded.end(), '"'), decoded.end());
    a->set_name(std::string(absl::StripAsciiWhitespace(decoded)));
  };
  for (size_t i = 0; i <= value.size(); ++i) {
    if (i < value.size() && value[i] == '"') quoted = !quoted;
    if (i == value.size() || (!quoted && value[i] == ',')) {
      add(std::string_view(value).substr(begin, i - begin));
      begin = i + 1;
    }
  }
}

}  // namespace

std::string_view HeaderBlock(std::string_view raw) {
  size_t at = 0;
  while (at < raw.size()) {
    size_t end = raw.find('\n', at);
    if (end == std::string_view::npos) return raw;
    if (end == at || (end == at + 1 && raw[at] == '\r')) return raw.substr(0, end + 1);
    at = end + 1;
  }
  return raw;
}

void EachField(std::string_view header_block,
               const std::function<bool(std::string_view name, std::string_view value)>& f) {
  size_t at = 0;
  while (at < header_block.size()) {
    size_t end = header_block.find('\n', at);
    if (end == std::string_view::npos) end = header_block.size();
    const size_t colon = header_block.substr(0, end).find(':', at);
    const std::string_view name =
        Sv(absl::StripTrailingAsciiWhitespace(Av(header_block.substr(at, std::min(colon, end) - at))));
    size_t next = end + 1;
    while (next < header_block.size() && (header_block[next] == ' ' || header_block[next] == '\t')) {
      end = header_block.find('\n', next);
      if (end == std::string_view::npos) end = header_block.size();
      next = end + 1;
    }
    if (colon != std::string_view::npos && !f(name, header_block.substr(colon + 1, end - colon - 1))) return;
    at = next;
  }
}

std::string Unfold(std::string_view value) {
  std::string out;
  EachLine(value.substr(0, kMaxHeaderBytes), [&out](std::string_view line) {
    out.append(line);
    return true;
  });
  return std::string(absl::StripAsciiWhitespace(out));
}

std::vector<std::string> RawHeaders(std::string_view header_block, std::string_view name, size_t limit) {
  std::vector<std::string> values;
  EachField(header_block, [&](std::string_view field, std::string_view value) {
    if (absl::EqualsIgnoreCase(Av(field), Av(name))) values.push_back(Unfold(value));
    return values.size() < limit;
  });
  return values;
}

std::string RawHeader(std::string_view header_block, std::string_view name) {
  std::vector<std::string> values = RawHeaders(header_block, name, 1);
  return values.empty() ? std::string() : std::move(values[0]);
}

std::string WithLineFeeds(std::string_view raw) {
  const size_t feed = raw.find('\n');
  const std::string_view first = raw.substr(0, feed);
  // CRs are line ends when nothing else is, or when the empty line behind the headers is made of them.
  const size_t pair = first.find("\r\r");
  const bool ends = feed == std::string_view::npos ? first.find('\r') != std::string_view::npos
                                                   : pair != std::string_view::npos && pair + 2 < first.size();
  if (!ends) return {};
  std::string out;
  out.reserve(raw.size());
  for (size_t i = 0; i < raw.size(); ++i) {
    const bool bare = raw[i] == '\r' && (i + 1 == raw.size() || raw[i + 1] != '\n');
    out.push_back(bare ? '\n' : raw[i]);
  }
  return out;
}

std::string MendAddresses(std::string_view value) {
  std::string out;
  std::string piece;
  bool quoted = false;
  size_t comments = 0;
  bool angle = false;
  auto flush = [&] {
    std::string_view name;
    std::string_view address;
    if (SplitBare(piece, name, address)) {
      absl::StrAppend(&out, Av(name), " <", Av(address), ">");
    } else {
      out += piece;
    }
    piece.clear();
  };
  for (size_t i = 0; i < value.size(); ++i) {
    const char c = value[i];
    EncodedWord word;
    if (c == '=' && i + 1 < value.size() && value[i + 1] == '?' && ParseEncodedWord(value, i, word)) {
      std::string_view text = value.substr(i, word.end - i);
      const size_t charset_end = text.find('?', 2);
      if (absl::ascii_tolower(static_cast<unsigned char>(text[charset_end + 1])) == 'b') {
        absl::StrAppend(&piece, Av(text.substr(0, charset_end)), "?B?", absl::Base64Escape(word.bytes), "?=");
      } else {
        piece += text;
      }
      i = word.end - 1;
      continue;
    }
    if (c == '\\' && (quoted || comments > 0) && i + 1 < value.size()) {
      piece.push_back(c);
      piece.push_back(value[++i]);
      continue;
    }
    if (c == '"' && comments == 0) quoted = !quoted;
    if (!quoted && c == '(') ++comments;
    if (!quoted && c == ')' && comments > 0) --comments;
    if (!quoted && comments == 0 && c == '<') angle = true;
    if (!quoted && comments == 0 && c == '>') angle = false;
    if (!quoted && comments == 0 && !angle && (c == ',' || c == ';' || c == ':')) {
      flush();
      out.push_back(c);
    } else {
      piece.push_back(c);
    }
  }
  flush();
  return out;
}

std::optional<std::string> FindLimit(std::string_view raw) {
  // Headers are recognised anywhere: inside of parts they count as well. What looks like one in a text does no harm
  // below the limits.
  size_t boundaries = 0;
  size_t multiparts = 0;
  size_t nested = 0;
  size_t headers = 0;
  std::optional<std::string> reason;
  const std::string_view block = HeaderBlock(raw);
  if (block.size() > kMaxHeaderBytes) return absl::StrCat("its headers have more than ", kMaxHeaderBytes, " bytes");
  EachLine(block, [&](std::string_view line) {
    if (!line.empty() && line[0] != ' ' && line[0] != '\t') ++headers;
    return true;
  });
  if (headers > kMaxHeaders) return absl::StrCat("it has more than ", kMaxHeaders, " header fields");
  bool attached_mail = false;
  bool groups = false;
  std::string folded;  // a Content-Type or Content-Disposition field and its continuation lines
  auto check = [&](const std::string& field) {
    if (field.empty()) return;
    const std::string_view value = std::string_view(field).substr(field.find(':') + 1);
    const std::string type = absl::AsciiStrToLower(Av(value));
    const std::string_view start = std::string_view(type).substr(0, 200);
    if (start.find("multipart/") != std::string_view::npos) ++multiparts;
    if (start.find("message/") != std::string_view::npos) ++nested;
    // Whatever may make GMime read headers within the body, however it is spelled.
    if (absl::StrContains(type, "message") || absl::StrContains(type, "digest") || field.size() >= kMaxHeaderBytes)
      attached_mail = true;
    if (StrangeParameters(value)) reason = "its Content-Type has malformed parameters";
  };
  bool in_address = false;
  size_t colons = 0;
  EachLine(raw, [&](std::string_view line) {
    const bool continues = !line.empty() && (line[0] == ' ' || line[0] == '\t');
    if (continues && in_address) {
      colons += Colons(line);
    } else if (continues && !folded.empty()) {
      if (folded.size() < kMaxHeaderBytes) folded.append(line);
    } else {
      check(folded);
      folded.clear();
      if (reason) return false;
      if (line.starts_with("--")) ++boundaries;
      // The mail's own fields are taken out of GMime's sight by HideDeepFields.
      in_address = line.data() >= block.data() + block.size() && IsAddressField(line);
      colons = in_address ? Colons(line) - 1 : 0;
      if (line.find(':') != std::string_view::npos &&
          (HasField(line, "Content-Type") || HasField(line, "Content-Disposition")))
        folded = line;
    }
    if (colons > kMaxGroups) groups = true;
    return true;
  });
  check(folded);
  if (reason) return reason;
  // A block that begins with an empty line may be skipped by GMime, and the next one taken for the mail's.
  if (groups && (attached_mail || block.size() <= 2)) return "an address field is nested too deeply";
  if (multiparts > 0 && boundaries > 2 * kMaxParts) {
    return absl::StrCat("it has more than ", kMaxParts, " parts");
  }
  if (multiparts > kMaxDepth || nested > 10 * kMaxDepth)
    return absl::StrCat("it is nested more than ", kMaxDepth, " deep");
  return std::nullopt;
}

bool TooManyGroups(std::string_view value) { return Colons(value) > kMaxGroups; }

std::string HideDeepFields(std::string_view raw) {
  std::string out;
  const char* field = nullptr;
  size_t colons = 0;
  auto hide = [&] {
    if (field == nullptr || colons <= kMaxGroups) return;
    if (out.empty()) out = raw;
    out[static_cast<size_t>(field - raw.data())] = 'X';
  };
  EachLine(HeaderBlock(raw), [&](std::string_view line) {
    const bool continues = !line.empty() && (line[0] == ' ' || line[0] == '\t');
    if (!continues) {
      hide();
      field = IsAddressField(line) ? line.data() : nullptr;
      colons = field == nullptr ? 0 : Colons(line) - 1;
    } else if (field != nullptr) {
      colons += Colons(line);
    }
    return true;
  });
  hide();
  return out;
}

std::string DecodeHeader(std::string_view value) {
  std::string out;
  std::string pending;  // bytes of adjacent encoded words of one charset: a character may be split between them
  std::string charset;
  auto flush = [&] {
    if (!charset.empty()) out += ToUtf8(pending, charset);
    pending.clear();
    charset.clear();
  };
  size_t at = 0;
  size_t plain = 0;
  auto take_plain = [&](size_t end) {
    const std::string_view text = value.substr(plain, end - plain);
    const bool blank = text.find_first_not_of(" \t\r\n") == std::string_view::npos;
    if (!charset.empty() && blank && end < value.size()) return;  // blanks between encoded words do not count
    flush();
    out += ToUtf8(text, "");
  };
  while (at < value.size()) {
    EncodedWord word;
    if (value[at] != '=' || at + 1 >= value.size() || value[at + 1] != '?' || !ParseEncodedWord(value, at, word)) {
      ++at;
      continue;
    }
    take_plain(at);
    if (word.charset != charset) flush();
    charset = word.charset;
    pending += word.bytes;
    at = plain = word.end;
  }
  if (plain < value.size()) take_plain(value.size());
  flush();
  std::erase_if(out, [](char c) { return c == '\r' || c == '\n'; });
  return out;
}

std::vector<std::string> ParseIds(std::string_view value) {
  constexpr size_t kMaxIds = 200;
  constexpr size_t kMaxId = 998;
  std::vector<std::string> out;
  auto add = [&out](std::string_view id) {
    std::string clean;
    for (char c : id) {
      if (static_cast<unsigned char>(c) > 0x20 && c != '<' && c != '>') clean.push_back(c);
    }
    if (!clean.empty() && clean.size() <= kMaxId && out.size() < kMaxIds) out.push_back(ToUtf8(clean, ""));
  };
  size_t at = 0;
  bool brackets = false;
  while ((at = value.find('<', at)) != std::string_view::npos) {
    const size_t close = value.find('>', at);
    if (close == std::string_view::npos) break;
    add(value.substr(at + 1, close - at - 1));
    brackets = true;
    at = close + 1;
  }
  if (!brackets) {
    size_t begin = 0;
    while (begin < value.size()) {
      size_t end = value.find_first_of(" \t,", begin);
      if (end == std::string_view::npos) end = value.size();
      if (value.substr(begin, end - begin).find('@') != std::string_view::npos) add(value.substr(begin, end - begin));
      begin = end + 1;
    }
    if (out.empty()) add(value.substr(0, kMaxId));
  }
  return out;
}

bool ParseDate(std::string_view value, int64_t& unix_seconds) {
  if (value.empty() || value.size() > 200) return false;
  if (IsoDate(value, unix_seconds)) return true;
  const std::string text(value);
  GDateTime* date = g_mime_utils_header_decode_date(text.c_str());
  if (date == nullptr) return false;
  unix_seconds = g_date_time_to_unix(date);
  g_date_time_unref(date);
  return true;
}

ParsedMail ScanHeaders(std::string_view raw) {
  constexpr size_t kMaxAddresses = 200;
  constexpr size_t kMaxIdFields = 50;
  constexpr int kMaxIds = 200;
  constexpr size_t kMaxSubject = 10'000;
  // A header block of bare CRs ends in the first bytes; what is far behind is not copied.
  const std::string with_feeds = WithLineFeeds(raw.substr(0, 4 * kMaxHeaderBytes));
  if (!with_feeds.empty()) raw = with_feeds;
  const std::string_view block = HeaderBlock(raw).substr(0, 4 * kMaxHeaderBytes);
  auto header = [&block](std::string_view name) {
    std::string value = RawHeader(block, name);
    if (value.size() > 64 << 10) value.resize(64 << 10);
    return value;
  };
  ParsedMail out;
  AddAddresses(header("From"), out.mutable_from(), 1);
  AddAddresses(header("Reply-To"), out.mutable_reply_to(), kMaxAddresses);
  AddAddresses(header("To"), out.mutable_to(), kMaxAddresses);
  AddAddresses(header("Cc"), out.mutable_cc(), kMaxAddresses);
  const std::string subject = header("Subject");
  out.set_subject(DecodeHeader(std::string_view(subject).substr(0, kMaxSubject)));
  int64_t date = 0;
  if (ParseDate(header("Date"), date)) {
    out.set_has_date(true);
    out.set_date_unix(date);
  }
  const std::vector<std::string> ids = ParseIds(header("Message-ID"));
  if (!ids.empty()) out.set_message_id(ids[0]);
  // Some programs write a field for each id, or one of their own beside the one they were given.
  auto all_ids = [&block](std::string_view name, google::protobuf::RepeatedPtrField<std::string>* target) {
    for (const std::string& value : RawHeaders(block, name, kMaxIdFields)) {
      for (std::string& id : ParseIds(std::string_view(value).substr(0, 64 << 10))) {
        if (target->size() < kMaxIds && std::find(target->begin(), target->end(), id) == target->end())
          *target->Add() = std::move(id);
      }
    }
  };
  all_ids("In-Reply-To", out.mutable_in_reply_to());
  all_ids("References", out.mutable_references());
  ClassifyOrigin(block, ReportParts(), out);
  return out;
}

}  // namespace poststelle::mail
