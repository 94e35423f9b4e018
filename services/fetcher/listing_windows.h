// How a listing is cut into answers of bounded size. Plain values, no I/O.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/imap/client.h"
#include "services/fetcher/listing.h"

namespace poststelle::fetcher {

// One message of a listing.
struct ListedMessage {
  Listed mail;
  std::string anchor;  // 32 bytes where older identities are to be recognised
};

// The answer to one listing command: keeps the messages with the lowest UIDs, whatever the server sends, in whatever
// order and however often.
class ListingAnswer {
 public:
  static constexpr size_t kDefaultKept = 20000;
  explicit ListingAnswer(imap::UidRange range, size_t kept = kDefaultKept) : range_(range), kept_(kept) {}

  // True if `uid` was asked for and is not above what is kept anyway.
  bool Wants(uint32_t uid) const;
  void Add(ListedMessage message);
  // A response without what was asked for; `lacks` says what, and must live as long as the program.
  void AddIncomplete(uint32_t uid, std::string_view lacks);

  // Messages that were answered incompletely only. Asked for once more before the answer counts as it stands: a server
  // may send a response that nobody asked for, because a flag of a message changed.
  std::optional<imap::UidRange> TakeIncomplete();
  // The messages by UID. kProtocol (imap::ErrorKind) where one is incomplete or a UID names two messages, because what
  // was left out here would be lost: the watermark moves over it.
  absl::StatusOr<std::vector<ListedMessage>> Take();
  // Once taken: whether the answer held more than is kept, and the highest UID seen.
  bool cut() const { return cut_; }
  uint32_t highest() const { return highest_; }

 private:
  void Compact();

  const imap::UidRange range_;
  const size_t kept_;
  std::vector<ListedMessage> messages_;
  std::map<uint32_t, std::string_view> incomplete_;
  bool many_incomplete_ = false;  // more than are remembered
  uint32_t ambiguous_ = 0;        // a UID that names two messages
  uint32_t highest_ = 0;
  bool cut_ = false;
};

// Which UIDs to ask for next. Windows follow what exists: a small folder is listed in one go; in a large one windows
// widen while answers are nearly empty, and become as narrow again as an answer that was too long showed to be right.
class ListingWindows {
 public:
  // `uid_next` and `exists` as the server told them at EXAMINE (0: not told).
  ListingWindows(uint32_t watermark, uint32_t uid_next, uint32_t exists, size_t kept = ListingAnswer::kDefaultKept);

  // Nothing once all is listed. The last one is open-ended, for mail that arrives meanwhile and for servers that tell
  // no UIDNEXT.
  std::optional<imap::UidRange> Next() const;
  // What came of Next(): so many messages, and, where the answer was cut, the last one kept and the highest one seen.
  void Answered(size_t messages);
  void AnsweredCut(uint32_t last_kept, uint32_t highest);

 private:
  const uint64_t kept_;
  const uint64_t widest_;
  uint64_t from_;
  uint64_t end_;  // the first UID behind those that exist; 0: unknown
  uint64_t width_;
  bool done_ = false;
};

}  // namespace poststelle::fetcher
