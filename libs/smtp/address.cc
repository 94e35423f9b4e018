#include "libs/smtp/address.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "libs/base/utf8.h"
#include "libs/smtp/error.h"

namespace poststelle::smtp {
namespace {

absl::Status Unfit(std::string_view why, std::string_view text) {
  return MakeError(Step::kNone, ErrorKind::kUnfit,
                   absl::StrCat("the address \"", Printable(text, 100), "\" can't be used: ", Av(why)));
}

}  // namespace

absl::StatusOr<Address> Address::Make(std::string text) {
  if (text.size() > kMaxAddress) return Unfit("it is too long", text);
  bool quoted = false;
  size_t at_sign = std::string::npos;
  for (size_t i = 0; i < text.size();) {
    const size_t here = i;
    uint32_t c = 0;
    if (!NextCodePoint(text, i, c)) return Unfit("it is not valid UTF-8", text);
    if (c < 0x20 || (c >= 0x7F && c < 0xA0)) return Unfit("it holds a control character", text);
    if (c == '<' || c == '>') return Unfit("it holds an angle bracket", text);
    if (c == '"') quoted = !quoted;
    if (c == '\\' && quoted) {
      // What is escaped: one printable character, which may be a quotation mark.
      if (i >= text.size() || static_cast<unsigned char>(text[i]) < 0x20) return Unfit("an escape is not ended", text);
      if (text[i] == '"' || text[i] == '\\') ++i;
    }
    if (c == ' ' && !quoted) return Unfit("it holds a space", text);
    if (c == '@' && !quoted) at_sign = here;
  }
  if (quoted) return Unfit("a quotation mark is not closed", text);
  if (!text.empty() && (at_sign == std::string::npos || at_sign == 0 || at_sign + 1 == text.size())) {
    return Unfit("it is not of the form name@domain", text);
  }
  absl::StatusOr<WireString> wire = WireString::Make(std::move(text), "an address");
  if (!wire.ok()) return Unfit(Sv(wire.status().message()), "");
  return Address(*std::move(wire));
}

bool Address::ascii() const {
  return std::all_of(text().begin(), text().end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

}  // namespace poststelle::smtp
