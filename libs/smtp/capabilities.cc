#include "libs/smtp/capabilities.h"

#include <string_view>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace poststelle::smtp {
namespace {

template <typename T>
void Limit(const std::string& word, absl::string_view name, T& out) {
  if (!absl::StartsWith(word, name)) return;
  T value = 0;
  if (absl::SimpleAtoi(absl::string_view(word).substr(name.size()), &value)) out = value;
}

}  // namespace

Capabilities ParseCapabilities(const Reply& reply) {
  Capabilities out;
  out.esmtp = true;
  for (size_t i = 1; i < reply.lines.size(); ++i) {  // the first line greets
    std::string line = absl::AsciiStrToUpper(reply.lines[i]);
    if (absl::StartsWith(line, "AUTH=")) line[4] = ' ';  // before RFC 2554 had settled
    const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    if (words.empty()) continue;
    const std::string& name = words[0];
    if (name == "STARTTLS") out.start_tls = true;
    if (name == "PIPELINING") out.pipelining = true;
    if (name == "8BITMIME") out.eight_bit_mime = true;
    if (name == "SMTPUTF8") out.smtp_utf8 = true;
    if (name == "CHUNKING") out.chunking = true;
    if (name == "DSN") out.dsn = true;
    if (name == "ENHANCEDSTATUSCODES") out.enhanced_status_codes = true;
    if (name == "SIZE") {
      out.size = true;
      if (words.size() > 1) Limit(words[1], "", out.max_size);
    }
    if (name == "AUTH") out.auth.insert(words.begin() + 1, words.end());
    if (name == "LIMITS") {
      for (const std::string& word : words) {
        Limit(word, "RCPTMAX=", out.max_recipients);
        Limit(word, "MAILMAX=", out.max_mails);
      }
    }
  }
  return out;
}

}  // namespace poststelle::smtp
