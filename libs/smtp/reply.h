// A server's replies (RFC 5321 §4.2): from bytes to code, enhanced code and text. Nothing in them is trusted.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/base/printable.h"

namespace poststelle::smtp {

// Longest line of a reply in bytes, with its end; most lines of one reply. Above it the server is out of its mind.
inline constexpr size_t kMaxReplyLine = 2'000;
inline constexpr size_t kMaxReplyLines = 100;
// Longest Text() in bytes.
inline constexpr size_t kMaxReplyText = 500;

struct Reply {
  int code = 0;          // 200 … 599; 0: there was no reply
  std::string enhanced;  // "5.7.8" (RFC 3463), or empty; its class is always that of `code`
  // The text of each line without codes, made Printable(), so that it can stand in a log or a message.
  std::vector<std::string> lines;

  int severity() const { return code / 100; }  // 2 done, 3 go on, 4 may go well later, 5 refused
  bool positive() const { return severity() == 2; }
  bool temporary() const { return severity() == 4; }
  // The lines joined by a space, at most kMaxReplyText bytes of whole characters.
  std::string Text() const;
  // For a person: 550 5.1.1 "no such user". Empty if there was no reply.
  std::string Quoted() const;
};

// Takes bytes until one reply is whole. Lines may end in LF alone. Not thread-safe.
class ReplyParser {
 public:
  // Takes what belongs to the current reply, at most to its end, and returns how many bytes that was; `out` is set when
  // it is whole, and the next call begins another. An error (kProtocol, of no step) for what is no reply; it is final.
  absl::StatusOr<size_t> Feed(std::string_view bytes, std::optional<Reply>& out);
  // True if part of a reply has come.
  bool in_reply() const { return !line_.empty() || !reply_.lines.empty(); }

 private:
  absl::StatusOr<bool> OnLine(std::string_view line);
  std::string line_;
  Reply reply_;
};

}  // namespace poststelle::smtp
