#include "libs/imap/response_parser.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/civil_time.h"
#include "absl/time/time.h"
#include "libs/base/status_macros.h"
#include "libs/base/sv.h"
#include "libs/imap/error.h"

namespace poststelle::imap {
namespace {

absl::Status Malformed(std::string_view what, std::string_view line) {
  return MakeError(ErrorKind::kProtocol,
                   absl::StrCat("the server sent something that is no IMAP (", Av(what), "): ", Quoted(line), "."));
}

template <typename T>
bool Number(std::string_view text, T& out) {
  if (text.empty()) return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

// "17-Jul-1996 02:44:25 -0700" (RFC 9051 §9 date-time); the day may be padded with a blank.
bool ParseInternalDate(std::string_view text, int64_t& out) {
  static constexpr std::array<std::string_view, 12> kMonths = {"jan", "feb", "mar", "apr", "may", "jun",
                                                               "jul", "aug", "sep", "oct", "nov", "dec"};
  if (text.size() != 26 || text[2] != '-' || text[6] != '-' || text[11] != ' ' || text[20] != ' ') return false;
  int day = 0, year = 0, hour = 0, minute = 0, second = 0, zone = 0;
  std::string_view day_text = text.substr(0, 2);
  if (day_text[0] == ' ') day_text.remove_prefix(1);
  const auto month = std::find(kMonths.begin(), kMonths.end(), absl::AsciiStrToLower(Av(text.substr(3, 3))));
  if (month == kMonths.end() || !Number(day_text, day) || !Number(text.substr(7, 4), year) ||
      !Number(text.substr(12, 2), hour) || !Number(text.substr(15, 2), minute) || !Number(text.substr(18, 2), second) ||
      !Number(text.substr(22, 4), zone) || (text[21] != '+' && text[21] != '-')) {
    return false;
  }
  const int offset = (zone / 100 * 60 + zone % 100) * (text[21] == '-' ? -60 : 60);
  const absl::CivilSecond local(year, month - kMonths.begin() + 1, day, hour, minute, second);
  out = absl::ToUnixSeconds(absl::FromCivil(local, absl::UTCTimeZone())) - offset;
  return true;
}

// Walks over the items of one response.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : text_(text) {}
  bool done() const { return at_ >= text_.size(); }
  char peek() const { return done() ? '\0' : text_[at_]; }
  void Skip() { ++at_; }
  void SkipBlanks() {
    while (peek() == ' ') ++at_;
  }
  std::string_view rest() const { return text_.substr(std::min(at_, text_.size())); }

  // A flag: up to a blank or parenthesis. "[" means nothing in it (RFC 9051 §9: atom).
  std::string_view Flag() {
    const size_t begin = at_;
    while (!done() && peek() != ' ' && peek() != '(' && peek() != ')') ++at_;
    return text_.substr(begin, at_ - begin);
  }

  // Up to a blank or parenthesis; brackets belong to the word with all they hold ("BODY[HEADER.FIELDS (DATE)]<0>").
  std::string_view Word() {
    const size_t begin = at_;
    bool bracket = false;
    while (!done()) {
      const char c = peek();
      if (!bracket && (c == ' ' || c == '(' || c == ')')) break;
      if (c == '[') bracket = true;
      if (c == ']') bracket = false;
      ++at_;
    }
    return text_.substr(begin, at_ - begin);
  }

  // A quoted string, literal, NIL or atom. False if it is malformed.
  bool String(std::string& out) {
    out.clear();
    if (peek() == '~') Skip();  // literal8 (RFC 9051 §4.3)
    if (peek() == '"') return QuotedString(out);
    if (peek() == '{') return Literal(out);
    const std::string_view word = Word();
    if (!absl::EqualsIgnoreCase(Av(word), "NIL")) out = word;
    return !word.empty();
  }

  // Skips one value of any form, lists included; false if it is malformed or nested too deeply.
  bool SkipValue() {
    int depth = 0;
    std::string ignored;
    do {
      SkipBlanks();
      if (done()) return false;
      if (peek() == '(') {
        if (++depth > kMaxNesting) return false;
        Skip();
      } else if (peek() == ')') {
        if (--depth < 0) return false;
        Skip();
      } else if (!String(ignored)) {
        return false;
      }
    } while (depth > 0);
    return true;
  }

 private:
  bool QuotedString(std::string& out) {
    Skip();
    while (!done() && peek() != '"') {
      if (peek() == '\\') Skip();
      if (done()) return false;
      out.push_back(peek());
      Skip();
    }
    if (done()) return false;
    Skip();
    return true;
  }
  bool Literal(std::string& out) {
    const size_t close = text_.find("}\r\n", at_);
    size_t size = 0;
    if (close == std::string_view::npos) return false;
    std::string_view digits = text_.substr(at_ + 1, close - at_ - 1);
    if (digits.ends_with('+')) digits.remove_suffix(1);
    if (!Number(digits, size) || size > text_.size() - close - 3) return false;
    out = text_.substr(close + 3, size);
    at_ = close + 3 + size;
    return true;
  }

  std::string_view text_;
  size_t at_ = 0;
};

// "[CODE value] text" behind OK, NO, BAD, BYE, PREAUTH.
void ParseStatusText(std::string_view rest, Response& out) {
  if (rest.starts_with('[')) {
    const size_t close = rest.find(']');
    if (close != std::string_view::npos) {
      const std::string_view inside = rest.substr(1, close - 1);
      const size_t blank = inside.find(' ');
      out.code = absl::AsciiStrToUpper(Av(inside.substr(0, blank)));
      if (blank != std::string_view::npos) out.code_value = inside.substr(blank + 1);
      rest.remove_prefix(close + 1);
      if (rest.starts_with(' ')) rest.remove_prefix(1);
    }
  }
  out.text = rest;
}

bool ParseFlags(Cursor& cursor, FetchItems& out) {
  if (cursor.peek() != '(') return false;
  cursor.Skip();
  out.has_flags = true;
  while (true) {
    cursor.SkipBlanks();
    if (cursor.done()) return false;
    if (cursor.peek() == ')') break;
    const std::string_view flag = cursor.Flag();
    if (flag.empty()) return false;
    if (absl::EqualsIgnoreCase(Av(flag), "\\Seen")) out.seen = true;
    if (absl::EqualsIgnoreCase(Av(flag), "\\Deleted")) out.deleted = true;
  }
  cursor.Skip();
  return true;
}

// How much of a literal behind "… BODY[HEADER…]" or "… BODY[HEADER…]<0>" is kept; 0 if it is none.
size_t KeptOfHeader(std::string_view upper_before) {
  const size_t name = upper_before.rfind("BODY[HEADER");
  if (name == std::string_view::npos) return 0;
  const std::string_view item = upper_before.substr(name);
  const std::string_view behind = item.substr(std::min(item.find(']'), item.size() - 1) + 1);
  const bool last = item.find(']') != std::string_view::npos &&
                    (behind.empty() || (behind.starts_with('<') && behind.find('>') == behind.size() - 1));
  if (!last) return 0;
  return item.starts_with("BODY[HEADER]") ? kMaxHeader : kMaxLiteral;
}

// One item of FETCH; false if it is malformed. `body` takes the bytes of a BODY[] that came as a quoted string.
bool ParseFetchItem(const std::string& name, Cursor& cursor, FetchItems& out, std::optional<std::string>& body) {
  std::string value;
  if (name == "FLAGS") return ParseFlags(cursor, out);
  if (name == "UID") {
    uint32_t uid = 0;
    if (!Number(cursor.Word(), uid) || uid == 0) return false;
    out.uid = uid;
    return true;
  }
  if (name == "RFC822.SIZE") {
    uint64_t size = 0;
    // RFC 9051 §9 number64: 63 bits.
    if (!Number(cursor.Word(), size) || size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return false;
    out.size = size;
    return true;
  }
  if (name == "INTERNALDATE") {
    int64_t date = 0;
    if (!cursor.String(value) || !ParseInternalDate(value, date)) return false;
    out.internal_date = date;
    return true;
  }
  if (absl::StartsWith(name, "BODY[HEADER")) {
    if (!cursor.String(value)) return false;
    out.header = value;
    return true;
  }
  if (name == "BODY[]") {
    out.has_body = true;
    if (!cursor.String(value)) return false;
    if (!value.empty()) body = value;
    return true;
  }
  return cursor.SkipValue();
}

}  // namespace

absl::Status ResponseParser::Feed(std::string_view bytes) {
  while (!bytes.empty()) {
    if (literal_left_ > 0) {
      const std::string_view part =
          bytes.substr(0, static_cast<size_t>(std::min<uint64_t>(literal_left_, bytes.size())));
      bytes.remove_prefix(part.size());
      literal_left_ -= part.size();
      if (in_body_) {
        PS_RETURN_IF_ERROR(handler_.OnBodyBytes(part));
      } else {
        const std::string_view kept = part.substr(0, static_cast<size_t>(std::min<uint64_t>(keep_left_, part.size())));
        line_.append(kept);
        keep_left_ -= kept.size();
      }
      if (literal_left_ > 0) continue;
      if (in_body_) PS_RETURN_IF_ERROR(handler_.OnBodyEnd());
      in_body_ = false;
      line_start_ = line_.size();
      continue;
    }
    const size_t end = bytes.find('\n');
    const std::string_view part = bytes.substr(0, end == std::string_view::npos ? bytes.size() : end + 1);
    bytes.remove_prefix(part.size());
    line_.append(part);
    const bool search = absl::StartsWithIgnoreCase(line_, "* SEARCH");
    if (line_.size() > (search ? kMaxSearchLine : kMaxLine)) {
      return MakeError(ErrorKind::kProtocol, absl::StrCat("the server sent a line of more than ",
                                                          search ? kMaxSearchLine : kMaxLine, " bytes."));
    }
    if (line_.back() == '\n') PS_RETURN_IF_ERROR(EndOfLine());
  }
  return absl::OkStatus();
}

absl::Status ResponseParser::EndOfLine() {
  // Some servers end lines with LF alone.
  if (line_.size() - line_start_ < 2 || line_[line_.size() - 2] != '\r') line_.insert(line_.size() - 1, "\r");
  const std::string_view physical = std::string_view(line_).substr(line_start_, line_.size() - line_start_ - 2);
  const size_t open = physical.ends_with('}') ? physical.rfind('{') : std::string_view::npos;
  if (open != std::string_view::npos) {
    std::string_view digits = physical.substr(open + 1, physical.size() - open - 2);
    if (digits.ends_with('+')) digits.remove_suffix(1);
    uint64_t size = 0;
    const bool number = !digits.empty() && digits.find_first_not_of("0123456789") == std::string_view::npos;
    if (number && !Number(digits, size)) return Malformed("a literal of impossible size", physical);
    if (number) return BeginLiteral(size);
  }
  line_.resize(line_.size() - 2);
  absl::Status parsed = Parse();
  line_.clear();
  line_start_ = 0;
  return parsed;
}

absl::Status ResponseParser::BeginLiteral(uint64_t size) {
  const size_t open = line_.rfind('{');
  const bool binary = open > 0 && line_[open - 1] == '~';
  std::string_view before = std::string_view(line_).substr(0, binary ? open - 1 : open);
  while (before.ends_with(' ')) before.remove_suffix(1);
  const size_t word = before.rfind(' ');
  const std::string item = absl::AsciiStrToUpper(Av(before.substr(word == std::string_view::npos ? 0 : word + 1)));
  const std::string upper = absl::AsciiStrToUpper(Av(before));
  const bool fetch = absl::StrContains(upper, " FETCH ");
  const bool body = absl::EndsWith(item, "BODY[]") && fetch;
  if (!body) {
    const size_t kept = fetch ? KeptOfHeader(upper) : 0;
    const uint64_t limit = kept > 0 ? std::max<uint64_t>(max_body_, kept) : kMaxLiteral;
    if (size > limit) {
      return MakeError(ErrorKind::kProtocol,
                       absl::StrCat("the server announced ", size, " bytes where ", limit, " are the limit."));
    }
    literal_left_ = size;
    keep_left_ = size;
    if (kept > 0 && size > kept) {
      keep_left_ = kept;
      line_.resize(open);
      absl::StrAppend(&line_, "{", kept, "}\r\n");
    }
    line_start_ = line_.size();
    return absl::OkStatus();
  }
  // "(UID 7 BODY[]": every real server tells the UID first.
  uint32_t uid = 0;
  const size_t list = before.find('(');
  for (Cursor cursor(before.substr(list == std::string_view::npos ? 0 : list + 1)); !cursor.done();) {
    cursor.SkipBlanks();
    const std::string_view name = cursor.Word();
    if (name.empty()) break;
    cursor.SkipBlanks();
    if (absl::EqualsIgnoreCase(Av(name), "UID")) {
      if (!Number(cursor.Word(), uid)) return Malformed("a UID that is no number", before);
      break;
    }
    if (cursor.done() || !cursor.SkipValue()) break;
  }
  if (size > max_body_) {
    PS_RETURN_IF_ERROR(handler_.OnBodyBegin(uid, size));
    return MakeError(ErrorKind::kTooLarge, absl::StrCat("the server announced ", size, " bytes for message ", uid,
                                                        ", more than the ", max_body_, " that are taken."));
  }
  line_.resize(binary ? open - 1 : open);
  line_.append("NIL");
  line_start_ = line_.size();
  PS_RETURN_IF_ERROR(handler_.OnBodyBegin(uid, size));
  if (size == 0) return handler_.OnBodyEnd();
  literal_left_ = size;
  in_body_ = true;
  return absl::OkStatus();
}

absl::Status ResponseParser::Parse() {
  Response out;
  Cursor cursor(line_);
  const std::string_view tag = cursor.Word();
  if (tag == "+") {
    out.kind = Response::Kind::kContinuation;
    cursor.SkipBlanks();
    out.text = cursor.rest();
    return handler_.OnResponse(std::move(out));
  }
  if (tag.empty() || cursor.peek() != ' ') return Malformed("no response", line_);
  cursor.SkipBlanks();
  if (tag != "*") {
    out.kind = Response::Kind::kTagged;
    out.tag = tag;
  }
  std::string_view name = cursor.Word();
  if (out.kind == Response::Kind::kUntagged && Number(name, out.number)) {
    cursor.SkipBlanks();
    name = cursor.Word();
  }
  out.name = absl::AsciiStrToUpper(Av(name));
  cursor.SkipBlanks();
  if (out.name == "OK" || out.name == "NO" || out.name == "BAD" || out.name == "BYE" || out.name == "PREAUTH") {
    ParseStatusText(cursor.rest(), out);
    return handler_.OnResponse(std::move(out));
  }
  if (out.kind == Response::Kind::kTagged) return Malformed("a command's answer without OK, NO or BAD", line_);
  if (out.name == "SEARCH") {
    while (!cursor.done()) {
      uint32_t number = 0;
      const std::string_view word = cursor.Word();
      if (absl::StartsWith(Av(word), "(") || cursor.peek() == '(') break;  // (MODSEQ n)
      if (!Number(word, number)) return Malformed("SEARCH", line_);
      out.numbers.push_back(number);
      cursor.SkipBlanks();
    }
    return handler_.OnResponse(std::move(out));
  }
  if (out.name != "FETCH") {
    out.text = cursor.rest();
    return handler_.OnResponse(std::move(out));
  }
  if (cursor.peek() != '(') return Malformed("FETCH", line_);
  cursor.Skip();
  std::optional<std::string> body;
  while (true) {
    cursor.SkipBlanks();
    if (cursor.done()) return Malformed("FETCH without its end", line_);
    if (cursor.peek() == ')') break;
    std::string item = absl::AsciiStrToUpper(Av(cursor.Word()));
    if (item.empty()) return Malformed("FETCH", line_);
    cursor.SkipBlanks();
    if (!ParseFetchItem(item, cursor, out.fetch, body)) return Malformed("FETCH " + item, line_);
  }
  if (body) {
    PS_RETURN_IF_ERROR(handler_.OnBodyBegin(out.fetch.uid.value_or(0), body->size()));
    PS_RETURN_IF_ERROR(handler_.OnBodyBytes(*body));
    PS_RETURN_IF_ERROR(handler_.OnBodyEnd());
  }
  return handler_.OnResponse(std::move(out));
}

}  // namespace poststelle::imap
