// A string that may stand in a line of a text protocol.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "libs/base/sv.h"

namespace poststelle {

// Holds no CR, LF or NUL, so that nothing in it can end the line and begin another command. Protocol code takes foreign
// strings in this form only; there is no way to make one but Make().
class WireString {
 public:
  WireString() = default;  // empty
  // InvalidArgument, naming `what`, for CR, LF and NUL, which no quoting makes safe.
  static absl::StatusOr<WireString> Make(std::string text, std::string_view what) {
    if (text.find_first_of(std::string_view("\r\n\0", 3)) != std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat(Av(what), " holds a line break or a NUL"));
    }
    return WireString(std::move(text));
  }
  const std::string& text() const { return text_; }
  bool operator==(const WireString&) const = default;

 private:
  explicit WireString(std::string text) : text_(std::move(text)) {}
  std::string text_;
};

}  // namespace poststelle
