#include "libs/smtp/content.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "libs/smtp/error.h"

namespace poststelle::smtp {

ContentTraits ScanContent(std::string_view message) {
  ContentTraits out;
  bool header = true;
  size_t line = 0;  // bytes of the current one so far
  for (size_t i = 0; i < message.size(); ++i) {
    const char c = message[i];
    if (c == '\r' || c == '\n') {
      if (c == '\r' && i + 1 < message.size() && message[i + 1] == '\n') {
        ++i;
      } else {
        out.canonical = false;
      }
      if (line == 0) header = false;
      out.longest_line = std::max(out.longest_line, line);
      line = 0;
      continue;
    }
    ++line;
    if (c == '\0') out.nul = true;
    if (static_cast<unsigned char>(c) >= 0x80) {
      out.eight_bit = true;
      out.eight_bit_header = out.eight_bit_header || header;
    }
  }
  if (line > 0) out.canonical = false;
  out.longest_line = std::max(out.longest_line, line);
  return out;
}

absl::Status CheckContent(const ContentTraits& traits) {
  if (traits.nul) {
    return MakeError(Step::kMail, ErrorKind::kUnfit, "the message holds a NUL byte, which SMTP does not carry");
  }
  if (traits.longest_line > kMaxTextLine) {
    return MakeError(Step::kMail, ErrorKind::kUnfit,
                     absl::StrCat("the message has a line of ", traits.longest_line, " bytes; SMTP carries ",
                                  kMaxTextLine, ". Encode the part as base64 or quoted-printable"));
  }
  return absl::OkStatus();
}

std::string Canonical(std::string_view message) {
  std::string out;
  out.reserve(message.size() + message.size() / 32 + 2);
  size_t begin = 0;
  while (begin < message.size()) {
    const size_t end = message.find_first_of("\r\n", begin);
    if (end == std::string_view::npos) {
      out.append(message.substr(begin));
      out.append("\r\n");
      break;
    }
    out.append(message.substr(begin, end - begin));
    out.append("\r\n");
    const bool crlf = message[end] == '\r' && end + 1 < message.size() && message[end + 1] == '\n';
    begin = end + (crlf ? 2 : 1);
  }
  return out;
}

void AppendDotStuffed(std::string_view message, size_t begin, size_t end, std::string& out) {
  message = message.substr(0, end);  // nothing behind it is searched
  size_t from = begin;
  for (size_t dot = message.find('.', begin); dot != std::string_view::npos; dot = message.find('.', dot + 1)) {
    if (dot != 0 && message[dot - 1] != '\n') continue;
    out.append(message.substr(from, dot - from));
    out.push_back('.');
    from = dot;
  }
  out.append(message.substr(from));
}

}  // namespace poststelle::smtp
