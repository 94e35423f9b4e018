// An address of an envelope, fit for MAIL FROM and RCPT TO.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "libs/base/wire_string.h"

namespace poststelle::smtp {

// RFC 5321 §4.5.3.1.3 allows 256 with the angle brackets; UTF-8 and careless systems need more.
inline constexpr size_t kMaxAddress = 512;

// An address without angle brackets, "" for the empty return path. It holds nothing that could end the path or the
// command: no control characters, no angle brackets, spaces in a quoted local part only, valid UTF-8. Whether such a
// mailbox exists is for the server to say.
class Address {
 public:
  Address() = default;  // the empty return path
  // InvalidArgument (ErrorKind::kUnfit) with the reason.
  static absl::StatusOr<Address> Make(std::string text);
  const std::string& text() const { return wire_.text(); }
  bool empty() const { return wire_.text().empty(); }
  bool ascii() const;

 private:
  explicit Address(WireString wire) : wire_(std::move(wire)) {}
  WireString wire_;
};

}  // namespace poststelle::smtp
