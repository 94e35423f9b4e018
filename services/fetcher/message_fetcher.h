// Fetches what is pending in windows, parses it in the child processes, and publishes it in order.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/imap/client.h"
#include "services/fetcher/fetch_run.h"

namespace poststelle::fetcher {

// The second half of a poll. A window of messages is counted as an attempt, downloaded with pipelined FETCHes while
// what has arrived is parsed, and committed while the next window is downloaded. Lives within one run.
class MessageFetcher {
 public:
  // At most this many messages and bytes in one window (knowledge: a window of 64 mails or 4 MB hides the round trips).
  static constexpr size_t kWindowMessages = 64;
  static constexpr uint64_t kWindowBytes = 4 << 20;
  // A message whose fetch killed this many worker processes is published without being parsed …
  static constexpr int kParseAttempts = 3;
  // … and after this many it is set aside without being fetched (I4).
  static constexpr int kFetchAttempts = 5;
  // A message in whose middle the connection failed this many times is set aside.
  static constexpr int kDownloadAttempts = 3;

  MessageFetcher(FetchContext& context, const config::v1::Mailbox& mailbox, Hold& hold, imap::Client& client,
                 uint32_t uid_validity, const std::atomic<bool>& stop);
  ~MessageFetcher();

  // Until nothing is pending. Returns how many were published.
  async::Task<absl::StatusOr<int>> FetchAll();

 private:
  struct Slot;
  class Sink;
  struct Finishing;
  using Window = std::vector<std::shared_ptr<Slot>>;

  bool IsSuspect(const PendingMessage& message) const;
  std::vector<PendingMessage> TakeWindow(std::vector<PendingMessage>& pending) const;
  async::Task<absl::Status> FetchWindow(Window& window);
  async::Task<absl::Status> FetchTooLarge(Slot& slot);
  async::Task<absl::Status> SettleMissing(Window& window, std::vector<uint32_t> missing, const std::string& refusal);
  async::Task<void> Parse(std::shared_ptr<Slot> slot);
  async::Task<absl::Status> Finish(Window& window);
  async::Task<void> RunFinish(std::shared_ptr<Finishing> finishing);
  async::Task<absl::Status> JoinFinish(std::shared_ptr<Finishing> finishing);
  async::Task<absl::Status> CloseWithout(uint32_t uid, std::string_view state, std::string reason);

  FetchContext& context_;
  const config::v1::Mailbox& mailbox_;
  Hold& hold_;
  imap::Client& client_;
  const uint32_t uid_validity_;
  const std::atomic<bool>& stop_;
  async::TaskScope parsing_;
  int published_ = 0;
};

}  // namespace poststelle::fetcher
