// Fetches what is pending in windows, parses it in the child processes, and publishes it in order.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/imap/client.h"
#include "libs/mail/parsed_mail.pb.h"
#include "services/fetcher/fetch_run.h"

namespace poststelle::fetcher {

// The second half of a poll. A window of messages is counted as an attempt, downloaded with pipelined FETCHes while
// what has arrived is parsed, and committed while the next window is downloaded; the attempts of the one after that are
// counted in the same commit, so that the connection does not wait for them. Lives within one run.
class MessageFetcher {
 public:
  // At most this many messages and bytes in one window (knowledge: a window of 64 mails or 4 MB hides the round trips).
  static constexpr size_t kWindowMessages = 64;
  static constexpr uint64_t kWindowBytes = 4 << 20;
  // A message whose fetch killed this many worker processes is published without being parsed …
  static constexpr int kParseAttempts = 3;
  // … and after this many it is set aside without being fetched (I4).
  static constexpr int kFetchAttempts = 5;
  // A message whose download, with it alone, failed in this many polls is set aside.
  static constexpr int kDownloadAttempts = 3;
  // A message may have an eighth and so many bytes more than the server lists (many count line ends in their own way).
  // One that has more is not kept but fetched again within the memory budget; after so many times it is set aside.
  static constexpr uint64_t kSizeSlack = 4 << 10;
  static constexpr int kSizeCorrections = 3;
  // Messages refused one by one "for now" until a poll gives up.
  static constexpr int kPassingRefusals = 8;

  MessageFetcher(FetchContext& context, const config::v1::Mailbox& mailbox, Hold& hold, imap::Client& client,
                 uint32_t uid_validity, const std::atomic<bool>& stop);
  ~MessageFetcher();

  // Until nothing is pending; with `new_only` until no new mail is, which leaves the backlog of a first listing to a
  // later call.
  async::Task<absl::Status> FetchAll(bool new_only);
  int published() const { return published_; }

 private:
  struct Slot;
  class Sink;
  struct Finishing;
  using Window = std::vector<std::shared_ptr<Slot>>;

  bool IsSuspect(const PendingMessage& message) const;
  // Where the window ends that begins at `begin`.
  size_t WindowEnd(const std::vector<PendingMessage>& pending, size_t begin) const;
  std::vector<PendingMessage> TakeWindow(std::vector<PendingMessage>& pending) const;
  // The messages of the second window from here, unless it is a suspect.
  std::set<std::string> SecondWindow(const std::vector<PendingMessage>& pending) const;
  async::Task<absl::Status> FetchWindow(Window& window);
  async::Task<absl::Status> FetchBodies(Window& asked);
  async::Task<absl::Status> FetchTooLarge(const std::shared_ptr<Slot>& slot);
  async::Task<absl::Status> SettleOutgrown(Window& asked);
  // `missing` was asked for together with `asked - 1` others.
  async::Task<absl::Status> SettleMissing(Window missing, size_t asked, const std::string& refusal);
  // The same where the server refused them for now.
  absl::Status SettlePassing(const Window& missing, size_t asked, absl::Status refusal);
  // Takes down who is to blame for `failure` of the connection while `asked` was being fetched.
  void Blame(const Window& asked, const absl::Status& failure);
  async::Task<void> Parse(Window together);
  void Complete(Slot& slot, const mail::ParsedMail& parsed);
  async::Task<absl::Status> Finish(Finishing& finishing);
  async::Task<void> RunFinish(std::shared_ptr<Finishing> finishing);
  async::Task<absl::Status> JoinFinish(std::shared_ptr<Finishing> finishing);
  async::Task<absl::Status> CloseWithout(uint32_t uid, std::string_view state, std::string reason);
  // It is settled: nothing more needs to be remembered of it.
  void Forget(uint32_t uid);

  FetchContext& context_;
  const config::v1::Mailbox& mailbox_;
  Hold& hold_;
  imap::Client& client_;
  const uint32_t uid_validity_;
  const std::atomic<bool>& stop_;
  std::optional<async::TaskScope> parsing_;  // of the present FetchAll()
  int published_ = 0;
  std::unordered_set<uint32_t> set_aside_;  // not tried again in this poll
  std::set<std::string> counted_;           // of what comes next: their attempts are
  int passing_refusals_ = 0;
  absl::Status refused_;  // for a reason that passes: the poll fails in the end
};

}  // namespace poststelle::fetcher
