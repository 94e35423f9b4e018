// Bytes of an IMAP server to responses (RFC 9051 §7), without I/O. Nothing a server sends can make it use unbounded
// memory, recurse, or crash.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace poststelle::imap {

// Text of one response, literals that are not bodies included.
inline constexpr size_t kMaxLine = 256 << 10;
// A literal that is not a body. Of headers this much is kept and the rest dropped: whoever sends a mail decides how
// long they are, and must not make its whole folder unreadable.
inline constexpr size_t kMaxLiteral = 64 << 10;
inline constexpr size_t kMaxHeader = 192 << 10;  // of BODY[HEADER], all fields
// A SEARCH answer's line holds every UID found; the sets we ask about bound it.
inline constexpr size_t kMaxSearchLine = 4 << 20;
inline constexpr int kMaxNesting = 64;

// The items of a FETCH response that we ask for; what is absent was not told.
struct FetchItems {
  std::optional<uint32_t> uid;
  std::optional<uint64_t> size;
  std::optional<int64_t> internal_date;  // seconds since 1970
  std::optional<std::string> header;     // BODY[HEADER…], at most kMaxLiteral or kMaxHeader bytes of it
  bool has_flags = false;
  bool seen = false;
  bool deleted = false;
  bool has_body = false;  // BODY[] was there (streamed, or empty)
};

struct Response {
  enum class Kind { kTagged, kUntagged, kContinuation };
  Kind kind = Kind::kUntagged;
  std::string tag;
  std::string name;     // upper case: OK NO BAD BYE PREAUTH CAPABILITY EXISTS SEARCH FETCH …
  uint32_t number = 0;  // of "* 5 EXISTS", "* 5 FETCH"
  std::string code;     // upper case, of "[UIDVALIDITY 7]"
  std::string code_value;
  std::string text;               // what a person reads; for CAPABILITY the list
  std::vector<uint32_t> numbers;  // SEARCH
  FetchItems fetch;
};

// Receives what was parsed. A status that is not OK ends the parsing and is returned by Feed.
class ResponseHandler {
 public:
  virtual ~ResponseHandler() = default;
  virtual absl::Status OnResponse(Response response) = 0;
  // The bytes of BODY[], as they come. `uid` is 0 if the server tells it only after the body. A body above the limit is
  // begun, so that it is known whose it is, and then ends the parsing.
  virtual absl::Status OnBodyBegin(uint32_t uid, uint64_t size) = 0;
  virtual absl::Status OnBodyBytes(std::string_view bytes) = 0;
  virtual absl::Status OnBodyEnd() = 0;
};

// Fed with slices of any size. After an error it must not be fed again.
class ResponseParser {
 public:
  ResponseParser(ResponseHandler& handler, uint64_t max_body) : handler_(handler), max_body_(max_body) {}
  absl::Status Feed(std::string_view bytes);
  // True where a server may end the connection: between two responses.
  // Bytes of a literal that are still to come.
  uint64_t literal_left() const { return literal_left_; }
  bool at_boundary() const { return line_.empty() && literal_left_ == 0; }

 private:
  absl::Status EndOfLine();
  absl::Status BeginLiteral(uint64_t size);
  absl::Status Parse();

  ResponseHandler& handler_;
  const uint64_t max_body_;
  std::string line_;           // the response so far; a literal as {n} CRLF and its bytes, a streamed body as NIL
  size_t line_start_ = 0;      // where the present physical line begins
  uint64_t literal_left_ = 0;  // bytes of the literal that are still to come
  uint64_t keep_left_ = 0;     // so many of them go into the line; the rest is dropped
  bool in_body_ = false;       // they are streamed
};

}  // namespace poststelle::imap
