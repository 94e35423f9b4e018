#include "services/config/mailbox_watch.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "absl/strings/str_cat.h"
#include "libs/rpc/status.h"

namespace poststelle::config {
namespace {

// How soon a change of another process is seen.
constexpr absl::Duration kLook = absl::Milliseconds(20);
constexpr absl::Duration kNobodyWatches = absl::Seconds(1);
// Bounds both the wait for a heartbeat and how long a drain takes to be noticed.
constexpr absl::Duration kIdle = absl::Milliseconds(250);
constexpr absl::Duration kHeartbeat = absl::Seconds(20);
constexpr size_t kRecent = 1000;
constexpr size_t kAtOnce = 500;
constexpr size_t kWrittenAtOnce = 100;

absl::StatusOr<int64_t> ParseToken(const std::string& epoch, const std::string& token) {
  const size_t dot = token.rfind('.');
  int64_t revision = -1;
  if (dot != std::string::npos) std::from_chars(token.data() + dot + 1, token.data() + token.size(), revision);
  if (revision < 0) return absl::InvalidArgumentError("resume_token: not a token of this service");
  if (token.substr(0, dot) != epoch)
    return absl::OutOfRangeError("the token is of another database; watch without a token");
  return revision;
}

// Where the watcher stands after its token, or after the snapshot that it gets without one.
async::Task<absl::StatusOr<int64_t>> SendSnapshot(MailboxStore& store, std::shared_ptr<WatchStream> stream) {
  absl::StatusOr<MailboxStore::Snapshot> snapshot = co_await store.ReadSnapshot();
  if (!snapshot.ok()) co_return snapshot.status();
  for (size_t begin = 0; begin < snapshot->mailboxes.size(); begin += kWrittenAtOnce) {
    const size_t end = std::min(begin + kWrittenAtOnce, snapshot->mailboxes.size());
    std::vector<v1::WatchMailboxesResponse> steps(end - begin);
    std::vector<const v1::WatchMailboxesResponse*> all;
    for (size_t i = begin; i < end; ++i) {
      *steps[i - begin].mutable_upserted() = std::move(snapshot->mailboxes[i]);
      all.push_back(&steps[i - begin]);
    }
    const bool sent = co_await stream->WriteAll(std::move(all));
    if (!sent) co_return absl::CancelledError("the watcher is gone");
  }
  co_return snapshot->revision;
}

}  // namespace

std::string ResumeToken(const std::string& epoch, int64_t revision) { return absl::StrCat(epoch, ".", revision); }

ChangeHub::ChangeHub(asio::any_io_executor executor, MailboxStore& store, const std::string& epoch)
    : store_(store), epoch_(epoch), look_(executor), scope_(executor) {}

ChangeHub::~ChangeHub() = default;

void ChangeHub::Start() { scope_.Spawn(Loop()); }

void ChangeHub::Stop() {
  scope_.Cancel();
  scope_.JoinBlocking();
}

async::Task<void> ChangeHub::Loop() {
  while (!scope_.cancelled()) {
    bool watched = false;
    {
      std::lock_guard lock(mutex_);
      watched = !woken_.empty();
      // Nobody has looked after it meanwhile.
      if (!watched) {
        begun_ = false;
        trouble_ = absl::OkStatus();
      }
    }
    if (watched) co_await Look();
    (co_await look_.Wait(watched ? kLook : kNobodyWatches)).IgnoreError();
  }
}

async::Task<void> ChangeHub::Look() {
  int64_t from = 0;
  bool begun = false;
  {
    std::lock_guard lock(mutex_);
    from = last_;
    begun = begun_;
  }
  absl::StatusOr<int64_t> newest = co_await store_.LastRevision();
  absl::Status status = newest.status();
  std::vector<Change> changes;
  // Behind what the log keeps, or ahead of a database that was put back: watchers find that out for themselves.
  bool afresh = !begun;
  if (newest.ok() && begun && *newest != from) {
    absl::StatusOr<std::vector<Change>> read = co_await store_.ReadChanges(from);
    if (read.ok()) changes = *std::move(read);
    afresh = absl::IsOutOfRange(read.status());
    if (!read.ok() && !afresh) status = read.status();
  }
  std::lock_guard lock(mutex_);
  const bool had_trouble = !trouble_.ok();
  trouble_ = status;
  if (status.ok() && afresh) {
    recent_.clear();
    last_ = *newest;
    begun_ = true;
  }
  for (Change& change : changes) {
    last_ = change.revision;
    recent_.push_back(ToStep(std::move(change)));
    if (recent_.size() > kRecent) recent_.pop_front();
  }
  if (changes.empty() && !afresh && status.ok() == !had_trouble) co_return;
  if (!changes.empty() && last_ < *newest) look_.Notify();  // there is more
  for (WatchStream* stream : woken_) stream->Wake();
}

ChangeHub::Step ChangeHub::ToStep(Change change) const {
  auto response = std::make_shared<v1::WatchMailboxesResponse>();
  if (change.mailbox) {
    *response->mutable_upserted() = *std::move(change.mailbox);
  } else {
    response->set_deleted("mailboxes/" + change.mailbox_id);
  }
  response->set_resume_token(ResumeToken(epoch_, change.revision));
  return {change.revision, std::move(response)};
}

async::Task<absl::StatusOr<std::vector<ChangeHub::Step>>> ChangeHub::Behind(int64_t revision) {
  std::vector<Step> out;
  {
    std::lock_guard lock(mutex_);
    if (!trouble_.ok()) co_return trouble_;
    if (begun_ && revision >= last_) co_return out;
    if (begun_ && !recent_.empty() && recent_.front().revision <= revision + 1) {
      for (const Step& step : recent_) {
        if (step.revision > revision && out.size() < kAtOnce) out.push_back(step);
      }
      co_return out;
    }
  }
  absl::StatusOr<std::vector<Change>> changes = co_await store_.ReadChanges(revision);
  if (!changes.ok()) co_return changes.status();
  for (Change& change : *changes) out.push_back(ToStep(std::move(change)));
  co_return out;
}

ChangeHub::Registration::Registration(ChangeHub& hub, std::shared_ptr<WatchStream> stream)
    : hub_(hub), stream_(std::move(stream)) {
  {
    std::lock_guard lock(hub_.mutex_);
    hub_.woken_.push_back(stream_.get());
  }
  hub_.Nudge();
}

ChangeHub::Registration::~Registration() {
  std::lock_guard lock(hub_.mutex_);
  hub_.woken_.erase(std::find(hub_.woken_.begin(), hub_.woken_.end(), stream_.get()));
}

async::Task<grpc::Status> Watch(MailboxStore& store, ChangeHub& hub, const std::string& epoch, std::string resume_token,
                                std::shared_ptr<WatchStream> stream, const std::atomic<bool>& draining) {
  int64_t revision = 0;
  if (resume_token.empty()) {
    absl::StatusOr<int64_t> sent = co_await SendSnapshot(store, stream);
    if (!sent.ok()) co_return rpc::FromAbsl(sent.status());
    revision = *sent;
  } else {
    absl::StatusOr<int64_t> parsed = ParseToken(epoch, resume_token);
    if (absl::IsOutOfRange(parsed.status())) {
      co_return rpc::Error(grpc::StatusCode::OUT_OF_RANGE, "REVISION_COMPACTED",
                           std::string(parsed.status().message()));
    }
    if (!parsed.ok()) {
      co_return rpc::InvalidFields({{"resume_token", "not a token of this service; watch without a token"}});
    }
    revision = *parsed;
    // Only the database can tell whether it knows the token's revision.
    absl::StatusOr<std::vector<Change>> known = co_await store.ReadChanges(revision);
    if (!known.ok()) co_return rpc::FromAbsl(known.status());
  }
  const ChangeHub::Registration registration(hub, stream);
  bool caught_up = false;
  absl::Time spoken = absl::InfinitePast();
  v1::WatchMailboxesResponse synced;
  synced.mutable_synced();
  while (true) {
    absl::StatusOr<std::vector<ChangeHub::Step>> steps = co_await hub.Behind(revision);
    if (!steps.ok()) co_return rpc::FromAbsl(steps.status());
    if (!steps->empty()) {
      std::vector<const v1::WatchMailboxesResponse*> all;
      for (const ChangeHub::Step& step : *steps) all.push_back(step.response.get());
      const bool sent = co_await stream->WriteAll(std::move(all));
      if (!sent) co_return grpc::Status::CANCELLED;
      revision = steps->back().revision;
      continue;
    }
    if (!caught_up || absl::Now() - spoken > kHeartbeat) {
      synced.set_resume_token(ResumeToken(epoch, revision));
      const bool sent = co_await stream->Write(synced);
      if (!sent) co_return grpc::Status::CANCELLED;
      spoken = absl::Now();
      caught_up = true;
    }
    const bool gone = co_await stream->WaitOrCancelled(kIdle);
    if (gone) co_return grpc::Status::CANCELLED;
    if (draining) co_return rpc::Error(grpc::StatusCode::UNAVAILABLE, "DRAINING", "the service is shutting down");
  }
}

}  // namespace poststelle::config
