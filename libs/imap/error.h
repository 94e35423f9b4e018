// Why an IMAP operation failed, as a value beside the sentence.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace poststelle::imap {

enum class ErrorKind {
  kNone,     // not an IMAP error
  kNetwork,  // see net::GetNetError
  kTimeout,
  kProtocol,  // the server's answer makes no sense
  kTooLarge,  // it announced a message above the limit
  kAuthRejected,
  kAuthUnavailable,  // no way to sign in that we may use on this connection
  kFolderMissing,
  kNoStartTls,
  kServerBye,
  kServerRefused,  // NO or BAD
};

absl::Status MakeError(ErrorKind kind, const std::string& message);
// Also tells network errors of libs/net.
ErrorKind GetErrorKind(const absl::Status& status);

// Marks an error whose reason the server says will pass (throttled, in use): nothing that was asked for is to blame.
absl::Status Passing(absl::Status status);
bool IsPassing(const absl::Status& status);

// A server's own words, fit for a message: control characters removed, at most 200 bytes.
std::string Quoted(std::string_view server_text);

}  // namespace poststelle::imap
