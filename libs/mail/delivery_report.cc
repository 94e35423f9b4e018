#include "libs/mail/delivery_report.h"

#include <algorithm>
#include <array>
#include <functional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "libs/base/sv.h"
#include "libs/mail/charset.h"
#include "libs/mail/scan.h"

namespace poststelle::mail {
namespace {

constexpr size_t kMaxTextBytes = 64 << 10;
constexpr int kMaxLines = 1000;
constexpr int kMaxWordLines = 8;  // beside one recipient
constexpr std::array<std::string_view, 7> kWrong = {"deliver", "recipient", "unknown",  "reject",
                                                    "fail",    "error",     "not found"};
constexpr std::string_view kPunctuation = "\"'.,:;()[]*";

std::string_view Strip(std::string_view text) { return Sv(absl::StripAsciiWhitespace(Av(text))); }

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// One line of readable UTF-8, at most `limit` bytes, not cut within a character.
std::string Clean(std::string_view text, size_t limit) {
  const std::string valid = ToUtf8(text.substr(0, 4 * limit), "");
  std::string out;
  for (const char c : valid) {
    const bool blank = static_cast<unsigned char>(c) <= 0x20 || c == 0x7F;
    if (!blank) out.push_back(c);
    if (blank && !out.empty() && out.back() != ' ') out.push_back(' ');
  }
  if (out.size() > limit) {
    size_t end = limit;
    while (end > 0 && (static_cast<unsigned char>(out[end]) & 0xC0) == 0x80) --end;
    out.resize(end);
  }
  return std::string(Strip(out));
}

// Behind `rfc822;` or `smtp;`, if it is there.
std::string_view WithoutType(std::string_view value) {
  const size_t semicolon = value.find(';');
  if (semicolon > 30) return Strip(value);  // npos, too
  const std::string_view type = Strip(value.substr(0, semicolon));
  const bool word = !type.empty() && std::all_of(type.begin(), type.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '.';
  });
  return Strip(word ? value.substr(semicolon + 1) : value);
}

// RFC 6533 §3: `\x{20AC}` in an address of type utf-8 is a character.
std::string DecodeUtf8Address(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t close = text.substr(i).starts_with("\\x{") ? text.find('}', i) : std::string_view::npos;
    if (close == std::string_view::npos || close < i + 5 || close > i + 9) {
      out.push_back(text[i]);
      continue;
    }
    uint32_t code = 0;
    bool hex = true;
    for (const char c : text.substr(i + 3, close - i - 3)) {
      const auto lower = static_cast<char>(absl::ascii_tolower(static_cast<unsigned char>(c)));
      hex &= IsDigit(lower) || (lower >= 'a' && lower <= 'f');
      code = code * 16 + static_cast<uint32_t>(IsDigit(lower) ? lower - '0' : lower - 'a' + 10);
    }
    if (!hex || code < 0x20 || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
      out.push_back(text[i]);
      continue;
    }
    if (code < 0x80) {
      out.push_back(static_cast<char>(code));
    } else if (code < 0x800) {
      out.push_back(static_cast<char>(0xC0 | code >> 6));
      out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
    } else {
      if (code < 0x10000) {
        out.push_back(static_cast<char>(0xE0 | code >> 12));
      } else {
        out.push_back(static_cast<char>(0xF0 | code >> 18));
        out.push_back(static_cast<char>(0x80 | (code >> 12 & 0x3F)));
      }
      out.push_back(static_cast<char>(0x80 | (code >> 6 & 0x3F)));
      out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
    }
    i = close;
  }
  return out;
}

// `rfc822; <joe@example.org>` is joe@example.org; empty if there is no address in it.
std::string RecipientIn(std::string_view value) {
  const bool utf8 = absl::StartsWithIgnoreCase(Av(Strip(value)), "utf-8");
  std::string_view address = WithoutType(value);
  if (const size_t open = address.find('<'); open != std::string_view::npos) {
    address = address.substr(open + 1, address.find('>', open) - open - 1);
  }
  if (address.size() > kMaxRecipientBytes) return {};
  const std::string clean = Clean(address, kMaxRecipientBytes);
  return utf8 ? DecodeUtf8Address(clean) : clean;
}

// The action in the words of RFC 3464 §2.3.3; where it is none, what the status says.
std::string ActionIn(std::string_view value, std::string_view status) {
  std::string word = absl::AsciiStrToLower(Av(Strip(value.substr(0, value.find_first_of(" \t(;")))));
  for (const std::string_view action : {"failed", "delayed", "delivered", "relayed", "expanded"}) {
    if (word == action) return word;
  }
  if (status.starts_with('4') && word.empty()) return "delayed";
  return status.starts_with('2') ? "delivered" : "failed";
}

// One group of fields while it is read.
struct Group {
  std::string original;
  std::string final_recipient;
  std::string action;
  std::string status;
  std::string diagnostic;

  bool about_recipient() const { return !original.empty() || !final_recipient.empty(); }
  DeliveryReport Report() const {
    DeliveryReport out;
    out.set_recipient(LooksLikeAddress(original) || final_recipient.empty() ? original : final_recipient);
    out.set_diagnostic(Clean(WithoutType(diagnostic), kMaxDiagnosticBytes));
    out.set_status(StatusIn(status));
    if (out.status().empty()) out.set_status(StatusIn(out.diagnostic()));
    out.set_action(ActionIn(action, out.status()));
    return out;
  }
};

// The returned mail, or its headers, begin with this line.
bool BeginsReturnedMail(std::string_view line) {
  for (const std::string_view field :
       {"Received:", "Return-Path:", "X-Original-To:", "Delivered-To:", "DKIM-Signature:"}) {
    if (absl::StartsWithIgnoreCase(Av(line), Av(field))) return true;
  }
  if (!line.starts_with("--") && !line.starts_with("==") && !line.starts_with("__")) {
    return absl::StartsWithIgnoreCase(Av(line), "Original message follows") ||
           absl::StartsWithIgnoreCase(Av(line), "Received-From-MTA:");
  }
  const std::string lower = absl::AsciiStrToLower(Av(line.substr(0, 200)));
  for (const std::string_view words : {"below this line", "copy of the", "original message", "message follows",
                                       "unsent message", "message header", "returned message", "original mail"}) {
    if (absl::StrContains(lower, Av(words))) return true;
  }
  return false;
}

// The recipient that `line` names: an address alone, `<joe@x>:` with or without words behind it, or `550 <joe@x>...
// no`. `words` is what else it says.
std::string RecipientOfLine(std::string_view line, std::string_view& words) {
  words = {};
  if (line.empty() || line.size() > 2000) return {};
  // `"joe@example.org":`
  if (line[0] == '"') {
    const size_t end = line.find('"', 1);
    const std::string_view quoted = line.substr(1, end - 1);
    if (end == std::string_view::npos || !line.substr(end + 1).starts_with(':') || !LooksLikeAddress(quoted)) return {};
    words = Strip(line.substr(end + 2));
    return std::string(quoted);
  }
  const size_t open = line.find('<');
  const size_t close = open == std::string_view::npos ? open : line.find('>', open);
  if (close != std::string_view::npos && (open == 0 || IsDigit(line[0]))) {
    const std::string_view address = line.substr(open + 1, close - open - 1);
    const std::string_view behind = Strip(line.substr(close + 1));
    const bool first = open == 0 && (behind.empty() || behind.starts_with(':') || behind.starts_with('('));
    const bool sendmail = open > 0 && (line[0] == '4' || line[0] == '5') && behind.starts_with("...");
    if ((!first && !sendmail && !(open == 0 && behind.starts_with("..."))) || !LooksLikeAddress(address)) return {};
    words = sendmail ? line : behind.starts_with(':') ? Strip(behind.substr(1)) : behind;
    return std::string(address);
  }
  const size_t end = line.find_first_of(" \t:,");
  std::string_view word = line.substr(0, end);
  const std::string_view behind = end == std::string_view::npos ? std::string_view() : Strip(line.substr(end));
  if (word.ends_with("...")) word.remove_suffix(3);
  const bool alone = behind.empty() || behind == ":" || behind.starts_with('(');
  if (!LooksLikeAddress(word) || !(alone || behind.starts_with(':') || line.substr(word.size()).starts_with("..."))) {
    return {};
  }
  words = behind.starts_with(':') ? Strip(behind.substr(1)) : behind;
  return std::string(word);
}

// The first address in a line that says that something went wrong; empty if there is none.
std::string RecipientInWords(std::string_view line) {
  const std::string lower = absl::AsciiStrToLower(Av(line.substr(0, 500)));
  const bool wrong = std::any_of(kWrong.begin(), kWrong.end(),
                                 [&lower](std::string_view word) { return absl::StrContains(lower, Av(word)); });
  if (!wrong) return {};
  for (const absl::string_view piece : absl::StrSplit(Av(line.substr(0, 500)), absl::ByAnyChar(" \t<>"))) {
    std::string_view word = Sv(piece);
    while (!word.empty() && kPunctuation.find(word.front()) != std::string_view::npos) word.remove_prefix(1);
    while (!word.empty() && kPunctuation.find(word.back()) != std::string_view::npos) word.remove_suffix(1);
    if (LooksLikeAddress(word)) return std::string(word);
  }
  return {};
}

// The recipients that `find` sees in a line, with what that line and those below say.
std::vector<DeliveryReport> ReadLines(const std::vector<std::string_view>& lines,
                                      const std::function<std::string(std::string_view, std::string_view&)>& find) {
  std::vector<DeliveryReport> out;
  std::vector<std::string> words;  // beside each recipient
  int word_lines = 0;
  for (const std::string_view line : lines) {
    std::string_view behind;
    const std::string recipient = find(line, behind);
    if (recipient.empty()) {
      if (!out.empty() && !line.empty() && word_lines < kMaxWordLines) {
        words.back().append(" ").append(line.substr(0, kMaxDiagnosticBytes));
        ++word_lines;
      }
      continue;
    }
    word_lines = 0;
    auto known = std::find_if(out.begin(), out.end(), [&recipient](const DeliveryReport& r) {
      return absl::EqualsIgnoreCase(r.recipient(), recipient);
    });
    if (known != out.end()) {
      // Listed first, explained below.
      const auto at = words.begin() + (known - out.begin());
      std::rotate(known, known + 1, out.end());
      std::rotate(at, at + 1, words.end());
      words.back().append(" ").append(behind);
      continue;
    }
    if (out.size() >= kMaxDeliveryReports) break;
    out.emplace_back().set_recipient(Clean(recipient, kMaxRecipientBytes));
    words.emplace_back(behind);
  }
  for (size_t i = 0; i < out.size(); ++i) {
    out[i].set_diagnostic(Clean(words[i], kMaxDiagnosticBytes));
    out[i].set_status(StatusIn(out[i].diagnostic()));
    out[i].set_action("failed");
  }
  return out;
}

}  // namespace

bool LooksLikeAddress(std::string_view text) {
  const size_t at = text.rfind('@');
  if (at == std::string_view::npos || at == 0 || at + 1 >= text.size() || text.size() > kMaxRecipientBytes)
    return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) > 0x20 && c != 0x7F &&
           std::string_view("<>()[],;:\\").find(c) == std::string_view::npos;
  });
}

std::string ReplyCodeIn(std::string_view words) {
  for (size_t i = 0; i + 3 <= words.size(); ++i) {
    if ((words[i] != '4' && words[i] != '5') || !IsDigit(words[i + 1]) || !IsDigit(words[i + 2])) continue;
    const char before = i == 0 ? ' ' : words[i - 1];
    const char behind = i + 3 == words.size() ? ' ' : words[i + 3];
    const bool free =
        !absl::ascii_isalnum(static_cast<unsigned char>(before)) && before != '.' && before != '-' &&
        (behind == ' ' || behind == '-' || behind == ':' || behind == '#' || behind == ',' || behind == ')');
    if (free && words[i + 1] <= '5') return std::string(words.substr(i, 3));
  }
  return {};
}

std::string StatusIn(std::string_view words) {
  auto digits = [words](size_t at) {
    size_t count = 0;
    while (at + count < words.size() && count <= 3 && IsDigit(words[at + count])) ++count;
    return count;
  };
  for (size_t i = 0; i + 5 <= words.size(); ++i) {
    if ((words[i] != '2' && words[i] != '4' && words[i] != '5') || words[i + 1] != '.') continue;
    if (i > 0 && (IsDigit(words[i - 1]) || words[i - 1] == '.')) continue;
    const size_t subject = digits(i + 2);
    const size_t dot = i + 2 + subject;
    if (subject == 0 || subject > 3 || dot >= words.size() || words[dot] != '.') continue;
    const size_t detail = digits(dot + 1);
    const size_t end = dot + 1 + detail;
    if (detail == 0 || detail > 3 || (end + 1 < words.size() && words[end] == '.' && IsDigit(words[end + 1]))) continue;
    return std::string(words.substr(i, end - i));
  }
  return {};
}

std::vector<DeliveryReport> ReadDeliveryStatus(std::string_view content) {
  std::vector<DeliveryReport> out;
  Group group;
  auto flush = [&] {
    if (group.about_recipient() && out.size() < kMaxDeliveryReports) out.push_back(group.Report());
    group = Group();
  };
  while (!content.empty() && out.size() < kMaxDeliveryReports) {
    const std::string_view block = HeaderBlock(content);
    EachField(block, [&](std::string_view name, std::string_view folded) {
      auto is = [name](std::string_view wanted) { return absl::EqualsIgnoreCase(Av(name), Av(wanted)); };
      auto value = [folded] { return Unfold(folded.substr(0, 4 * kMaxDiagnosticBytes)); };
      if (is("Final-Recipient")) {
        if (!group.final_recipient.empty()) flush();
        group.final_recipient = RecipientIn(value());
      } else if (is("Original-Recipient")) {
        if (!group.original.empty()) flush();
        group.original = RecipientIn(value());
      } else if (is("Action")) {
        group.action = value();
      } else if (is("Status")) {
        group.status = value();
      } else if (is("Diagnostic-Code")) {
        group.diagnostic = value();
      }
      return out.size() < kMaxDeliveryReports;
    });
    flush();
    content.remove_prefix(block.size());
  }
  return out;
}

std::vector<DeliveryReport> ReadBounceText(std::string_view text) {
  text = text.substr(0, kMaxTextBytes);
  // A report in the form of RFC 3464 that lost its media type on the way.
  if (std::vector<DeliveryReport> out = ReadDeliveryStatus(text); !out.empty()) return out;
  std::vector<std::string_view> lines;
  for (const absl::string_view piece : absl::StrSplit(Av(text), '\n')) {
    const std::string_view line = Strip(Sv(piece));
    if (lines.size() >= kMaxLines || BeginsReturnedMail(line)) break;
    lines.push_back(line);
  }
  std::vector<DeliveryReport> out = ReadLines(lines, RecipientOfLine);
  if (!out.empty()) return out;
  // No list of recipients: somewhere in a sentence. Whoever else is named below is not one.
  out = ReadLines(lines, [](std::string_view line, std::string_view& words) {
    words = line;
    return RecipientInWords(line);
  });
  if (out.size() > 1) out.resize(1);
  return out;
}

std::string ReturnedMessageId(std::string_view text) {
  for (const absl::string_view piece : absl::StrSplit(Av(text.substr(0, kMaxTextBytes)), '\n')) {
    if (!absl::StartsWithIgnoreCase(piece, "Message-ID:")) continue;
    const std::vector<std::string> ids = ParseIds(Sv(piece).substr(11));
    if (!ids.empty()) return ids[0];
  }
  return {};
}

}  // namespace poststelle::mail
