// What all subscribers of this process share: one look at the database for all of them, one renewal, one transaction
// for the acknowledgements of a few milliseconds. Knows nothing of gRPC; subscriber.cc serves the streams.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "libs/async/runtime.h"
#include "poststelle/fetcher/v1/ticket_feed_service.pb.h"
#include "services/fetcher/subscriptions.h"
#include "services/fetcher/ticket_feed.h"

namespace poststelle::fetcher {

// One subscriber. Everything from `mutex` on is guarded by it; `changed` is notified (for the stream that serves it,
// its one waiter) whenever something else than the stream has changed it, or when there are new events.
struct Member {
  Member(const asio::any_io_executor& executor, std::string subscription, std::string member_id)
      : name(std::move(subscription)), id(std::move(member_id)), changed(executor) {}
  const std::string name;
  const std::string id;
  async::Event changed;

  // A partition that it delivers. acknowledged ≤ sent.
  struct Part {
    int64_t generation = 0;
    int64_t acknowledged = 0;
    int64_t sent = 0;
    int64_t refused = 0;  // this offset was refused: the generation is about to end
    bool wanted = false;  // by another member: nothing more is sent
    absl::Time release_by = absl::InfiniteFuture();
  };
  std::mutex mutex;
  std::map<int, Part> parts;
  std::map<int, absl::Time> pauses;          // after a refusal; by partition
  std::deque<v1::SubscribeResponse> outbox;  // to be sent before any event
  bool idle = false;                         // has no partition and will not get one soon
  int unsettled = 0;                         // steps that are not durable yet
  std::optional<absl::Status> failed;        // the stream can't go on
  bool ended = false;                        // set by the stream: the client has closed its side
};

// Thread-safe.
class FeedHub {
 public:
  struct Options {
    // How often other processes' changes are looked for.
    absl::Duration look_every = absl::Milliseconds(100);
    // How long acknowledgements wait for company.
    absl::Duration gather = absl::Milliseconds(3);
    // How long a partition that another member is due waits for what is on its way.
    absl::Duration hand_over = absl::Seconds(3);
  };
  FeedHub(asio::any_io_executor executor, TicketFeed& feed, Subscriptions& subscriptions, Options options);
  ~FeedHub();  // after the last stream has left

  // Makes a member of `subscription` that is served by this process. Its partitions come by and by.
  async::Task<absl::StatusOr<std::shared_ptr<Member>>> Join(std::string subscription, bool from_now);
  // Waits until its steps are durable, then gives back what it holds; if the database is away, later. An error if they
  // did not become durable within a few seconds.
  async::Task<absl::Status> Leave(std::shared_ptr<Member> member);
  // Takes an acknowledgement or refusal, to be durable soon; only the newest acknowledgement of a partition is kept.
  void Submit(const std::shared_ptr<Member>& member, Subscriptions::Step step);
  // Last known offset of each partition.
  std::shared_ptr<const Offsets> Heads() const;

 private:
  struct Queued {
    std::shared_ptr<Member> member;
    Subscriptions::Step step;
  };
  async::Task<void> LookLoop();
  async::Task<void> StepLoop();
  async::Task<absl::Status> LookOnce();
  async::Task<absl::Status> Renew();
  async::Task<absl::Status> Refresh(std::string name);
  async::Task<absl::Status> ReleaseWanted(std::shared_ptr<Member> member);
  async::Task<absl::Status> FinishLeaves();
  void Settled(const Queued& queued, const absl::Status& committed);
  std::vector<std::shared_ptr<Member>> Members() const;

  TicketFeed& feed_;
  Subscriptions& subscriptions_;
  const Options options_;
  const asio::any_io_executor executor_;
  async::Event submitted_;
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<Member>> members_;  // guarded by mutex_
  std::vector<std::shared_ptr<Member>> leaving_;  // guarded by mutex_; still to be told to the database
  std::vector<Queued> queue_;                     // guarded by mutex_
  std::shared_ptr<const Offsets> heads_ = std::make_shared<Offsets>();  // guarded by mutex_
  std::map<std::string, int64_t> versions_;    // LookLoop's own: which assignment the members know
  absl::Time renewed_ = absl::InfinitePast();  // LookLoop's own
  async::TaskScope scope_;
};

}  // namespace poststelle::fetcher
