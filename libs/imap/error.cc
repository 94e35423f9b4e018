#include "libs/imap/error.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "libs/net/stream.h"

namespace poststelle::imap {
namespace {

constexpr char kImapErrorUrl[] = "poststelle/imap";
constexpr char kPassingUrl[] = "poststelle/imap-passing";
constexpr size_t kMaxQuoted = 200;

}  // namespace

absl::Status MakeError(ErrorKind kind, const std::string& message) {
  absl::Status status = absl::UnknownError(message);
  status.SetPayload(kImapErrorUrl, absl::Cord(std::string(1, static_cast<char>('a' + static_cast<int>(kind)))));
  return status;
}

ErrorKind GetErrorKind(const absl::Status& status) {
  if (auto payload = status.GetPayload(kImapErrorUrl)) return static_cast<ErrorKind>(std::string(*payload)[0] - 'a');
  return net::IsNetError(status) ? ErrorKind::kNetwork : ErrorKind::kNone;
}

absl::Status Passing(absl::Status status) {
  if (!status.ok()) status.SetPayload(kPassingUrl, absl::Cord("1"));
  return status;
}

bool IsPassing(const absl::Status& status) { return status.GetPayload(kPassingUrl).has_value(); }

std::string Quoted(std::string_view server_text) {
  std::string out;
  for (char c : server_text.substr(0, kMaxQuoted)) {
    if (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f) out.push_back(c);
  }
  return absl::StrCat("\"", out, "\"");
}

}  // namespace poststelle::imap
