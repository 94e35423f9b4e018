#include "libs/smtp/reply.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "libs/base/printable.h"
#include "libs/base/sv.h"
#include "libs/smtp/error.h"

namespace poststelle::smtp {
namespace {

// Length of an enhanced status code of `severity` at the beginning of `text`, which is followed by a space or nothing;
// 0: none.
size_t EnhancedCode(std::string_view text, int severity) {
  if (text.size() < 5 || text[0] != '0' + severity) return 0;
  size_t at = 1;
  for (int part = 0; part < 2; ++part) {
    if (at >= text.size() || text[at] != '.') return 0;
    const size_t begin = ++at;
    while (at < text.size() && absl::ascii_isdigit(static_cast<unsigned char>(text[at]))) ++at;
    if (at == begin || at - begin > 3) return 0;
  }
  return at == text.size() || text[at] == ' ' ? at : 0;
}

// What somebody else who listens there begins with.
std::string WhoItIs(std::string_view line) {
  const std::pair<const char*, const char*> known[] = {
      {"* ", "an IMAP"}, {"+OK", "a POP3"}, {"HTTP/", "an HTTP"}, {"SSH-", "an SSH"}};
  for (const auto& [begin, name] : known) {
    if (absl::StartsWith(Av(line), begin)) return absl::StrCat("; this looks like ", name, " server");
  }
  if (!line.empty() && (line[0] == 0x15 || line[0] == 0x16)) return "; it seems to expect TLS at once";
  return "";
}

}  // namespace

std::string Reply::Text() const { return Printable(absl::StrJoin(lines, " "), kMaxReplyText); }

std::string Reply::Quoted() const {
  if (code == 0) return "";
  return absl::StrCat(code, enhanced.empty() ? "" : " ", enhanced, " \"", Text(), "\"");
}

absl::StatusOr<size_t> ReplyParser::Feed(std::string_view bytes, std::optional<Reply>& out) {
  out.reset();
  size_t taken = 0;
  while (taken < bytes.size()) {
    const std::string_view rest = bytes.substr(taken);
    const size_t end = rest.find('\n');
    const std::string_view part = rest.substr(0, end == std::string_view::npos ? rest.size() : end + 1);
    if (line_.size() + part.size() > kMaxReplyLine) {
      return MakeError(Step::kNone, ErrorKind::kProtocol, "a line of the server's reply does not end");
    }
    line_.append(part);
    taken += part.size();
    if (end == std::string_view::npos) break;
    std::string_view line = line_;
    line.remove_suffix(line.size() > 1 && line[line.size() - 2] == '\r' ? 2 : 1);
    const absl::StatusOr<bool> whole = OnLine(line);
    if (!whole.ok()) return whole.status();
    line_.clear();
    if (*whole) {
      out = std::exchange(reply_, Reply());
      break;
    }
  }
  return taken;
}

absl::StatusOr<bool> ReplyParser::OnLine(std::string_view line) {
  const auto digit = [line](size_t i) { return absl::ascii_isdigit(static_cast<unsigned char>(line[i])); };
  const bool is_reply = line.size() >= 3 && line[0] >= '2' && line[0] <= '5' && digit(1) && digit(2) &&
                        (line.size() == 3 || line[3] == ' ' || line[3] == '-');
  if (!is_reply) {
    return MakeError(Step::kNone, ErrorKind::kProtocol,
                     absl::StrCat("what the server says is no SMTP: \"", Printable(line, 100), "\"", WhoItIs(line)));
  }
  const int code = (line[0] - '0') * 100 + (line[1] - '0') * 10 + (line[2] - '0');
  if (!reply_.lines.empty() && reply_.code != code) {
    return MakeError(Step::kNone, ErrorKind::kProtocol,
                     absl::StrCat("the server's reply changes its code from ", reply_.code, " to ", code));
  }
  if (reply_.lines.size() == kMaxReplyLines) {
    return MakeError(Step::kNone, ErrorKind::kProtocol, "the server's reply does not end");
  }
  reply_.code = code;
  std::string_view text = line.substr(line.size() == 3 ? 3 : 4);
  if (const size_t size = EnhancedCode(text, reply_.severity()); size > 0) {
    if (reply_.enhanced.empty()) reply_.enhanced = std::string(text.substr(0, size));
    text.remove_prefix(std::min(size + 1, text.size()));
  }
  reply_.lines.push_back(Printable(text, kMaxReplyLine));
  return line.size() == 3 || line[3] == ' ';
}

}  // namespace poststelle::smtp
