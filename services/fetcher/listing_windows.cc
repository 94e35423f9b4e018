#include "services/fetcher/listing_windows.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "libs/base/sv.h"
#include "libs/imap/session.h"

namespace poststelle::fetcher {
namespace {

constexpr uint64_t kWidening = 4;
constexpr uint64_t kNearlyEmpty = 4;  // less than this part of what may be kept

}  // namespace

bool ListingAnswer::Wants(uint32_t uid) const {
  // "n:*" always answers with the last message, even one below n (RFC 9051 §6.4.9).
  if (uid < range_.from || uid > range_.to) return false;
  return !cut_ || uid <= messages_[kept_ - 1].mail.uid;
}

void ListingAnswer::Add(ListedMessage message) {
  highest_ = std::max(highest_, message.mail.uid);
  if (!Wants(message.mail.uid)) return;
  messages_.push_back(std::move(message));
  if (messages_.size() >= 2 * kept_) Compact();
}

void ListingAnswer::AddIncomplete(uint32_t uid, std::string_view lacks) {
  if (!Wants(uid)) return;
  incomplete_.emplace(uid, lacks);
  if (incomplete_.size() < 2 * kept_) return;
  Compact();  // those that are listed already are no loss
  if (incomplete_.size() <= kept_) return;
  incomplete_.erase(std::next(incomplete_.begin(), static_cast<std::ptrdiff_t>(kept_)), incomplete_.end());
  many_incomplete_ = true;
}

void ListingAnswer::Compact() {
  auto by_uid = [](const ListedMessage& a, const ListedMessage& b) { return a.mail.uid < b.mail.uid; };
  std::stable_sort(messages_.begin(), messages_.end(), by_uid);
  size_t out = 0;
  for (size_t i = 0; i < messages_.size(); ++i) {
    if (out > 0 && messages_[out - 1].mail.uid == messages_[i].mail.uid) {
      const Listed& one = messages_[out - 1].mail;
      const Listed& other = messages_[i].mail;
      if (one.size != other.size || one.internal_date != other.internal_date) ambiguous_ = one.uid;
      continue;
    }
    if (out != i) messages_[out] = std::move(messages_[i]);
    ++out;
  }
  messages_.resize(out);
  for (const ListedMessage& message : messages_) incomplete_.erase(message.mail.uid);
  if (messages_.size() <= kept_) return;
  messages_.resize(kept_);
  cut_ = true;
  incomplete_.erase(incomplete_.upper_bound(messages_.back().mail.uid), incomplete_.end());
}

std::optional<imap::UidRange> ListingAnswer::TakeIncomplete() {
  Compact();
  if (incomplete_.empty()) return std::nullopt;
  const uint32_t last = many_incomplete_ ? range_.to : incomplete_.rbegin()->first;
  const imap::UidRange range{incomplete_.begin()->first, last};
  incomplete_.clear();
  many_incomplete_ = false;
  return range;
}

absl::StatusOr<std::vector<ListedMessage>> ListingAnswer::Take() {
  Compact();
  if (!incomplete_.empty()) {
    const auto& [uid, lacks] = *incomplete_.begin();
    return imap::MakeError(imap::ErrorKind::kProtocol,
                           absl::StrCat("the server lists message ", uid, " without ", Av(lacks), "."));
  }
  if (many_incomplete_) {
    return imap::MakeError(imap::ErrorKind::kProtocol, "the server lists messages without size or receive time.");
  }
  if (ambiguous_ != 0) {
    return imap::MakeError(imap::ErrorKind::kProtocol,
                           absl::StrCat("the server lists two messages with the UID ", ambiguous_, "."));
  }
  return std::move(messages_);
}

ListingWindows::ListingWindows(uint32_t watermark, uint32_t uid_next, uint32_t exists, size_t kept)
    : kept_(kept),
      // A window of so many UIDs can't bring more responses than a session takes.
      widest_(exists <= imap::kMaxResponses / 2 ? imap::kMaxUid : imap::kMaxResponses / 2),
      from_(uint64_t{watermark} + 1),
      end_(uid_next),
      width_(exists <= kept ? imap::kMaxUid : kept) {}

std::optional<imap::UidRange> ListingWindows::Next() const {
  if (done_ || from_ > imap::kMaxUid) return std::nullopt;
  const bool last = end_ <= from_ || end_ - from_ <= width_;
  const uint64_t to = last ? imap::kMaxUid : from_ + width_ - 1;
  return imap::UidRange{static_cast<uint32_t>(from_), static_cast<uint32_t>(to)};
}

void ListingWindows::Answered(size_t messages) {
  const imap::UidRange range = *Next();
  if (range.to == imap::kMaxUid) {
    done_ = true;
    return;
  }
  from_ = uint64_t{range.to} + 1;
  if (messages < kept_ / kNearlyEmpty) width_ = std::min(widest_, width_ * kWidening);
}

void ListingWindows::AnsweredCut(uint32_t last_kept, uint32_t highest) {
  width_ = std::max(kept_, std::min(width_, last_kept - from_ + 1));
  from_ = uint64_t{last_kept} + 1;
  end_ = std::max(end_, uint64_t{highest} + 1);
}

}  // namespace poststelle::fetcher
