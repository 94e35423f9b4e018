#include "libs/net/resolver.h"

#include <ares.h>
#include <netdb.h>
#include <sys/select.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "libs/net/stream.h"

namespace poststelle::net {
namespace {

constexpr int kTryMs = 1500;
constexpr int kTries = 2;

struct Query {
  explicit Query(const asio::any_io_executor& executor) : ended(executor) {}
  std::string host;
  int status = ARES_ENODATA;                 // written before `done`
  std::vector<asio::ip::address> addresses;  // written before `done`
  std::atomic<bool> done{false};
  async::Event ended;
};

void OnAddresses(void* argument, int status, int, ares_addrinfo* result) {
  std::unique_ptr<std::shared_ptr<Query>> owned(static_cast<std::shared_ptr<Query>*>(argument));
  Query& query = **owned;
  query.status = status;
  for (ares_addrinfo_node* node = result == nullptr ? nullptr : result->nodes; node != nullptr; node = node->ai_next) {
    if (node->ai_family == AF_INET) {
      const auto* in = reinterpret_cast<const sockaddr_in*>(node->ai_addr);
      query.addresses.emplace_back(asio::ip::address_v4(ntohl(in->sin_addr.s_addr)));
    } else if (node->ai_family == AF_INET6) {
      const auto* in6 = reinterpret_cast<const sockaddr_in6*>(node->ai_addr);
      asio::ip::address_v6::bytes_type bytes;
      std::memcpy(bytes.data(), &in6->sin6_addr, bytes.size());
      query.addresses.emplace_back(asio::ip::address_v6(bytes));
    }
  }
  if (result != nullptr) ares_freeaddrinfo(result);
  query.done = true;
  query.ended.Notify();
}

}  // namespace

// The channel belongs to the thread; everybody else puts queries into the queue and wakes it through a pipe.
struct Resolver::Impl {
  Impl() {
    ares_library_init(ARES_LIB_INIT_ALL);
    if (pipe(wake.data()) != 0) std::abort();
    ares_options options{};
    options.timeout = kTryMs;
    options.tries = kTries;
    ready = ares_init_options(&channel, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES) == ARES_SUCCESS;
    thread = std::thread([this] { Loop(); });
  }
  ~Impl() {
    stopped = true;
    Wake();
    thread.join();
    if (ready) ares_destroy(channel);  // ends what is pending
    close(wake[0]);
    close(wake[1]);
    ares_library_cleanup();
  }
  void Wake() const {
    // A full pipe has a byte in it already, which is all a wake-up needs.
    [[maybe_unused]] const ssize_t n = write(wake[1], "x", 1);
  }
  void Loop() {
    while (!stopped) {
      Begin();
      fd_set readable;
      fd_set writable;
      FD_ZERO(&readable);
      FD_ZERO(&writable);
      const int highest = std::max(ready ? ares_fds(channel, &readable, &writable) : 0, wake[0] + 1);
      FD_SET(wake[0], &readable);
      timeval longest{5, 0};
      timeval space{};
      timeval* wait = ready ? ares_timeout(channel, &longest, &space) : &longest;
      if (select(highest, &readable, &writable, nullptr, wait) < 0) continue;
      if (FD_ISSET(wake[0], &readable)) {
        char drained[64];
        [[maybe_unused]] const ssize_t n = read(wake[0], drained, sizeof drained);
        FD_CLR(wake[0], &readable);
      }
      if (ready) ares_process(channel, &readable, &writable);
    }
  }
  void Begin() {
    std::deque<std::shared_ptr<Query>> fresh;
    {
      std::lock_guard lock(mutex);
      fresh.swap(queue);
    }
    for (const std::shared_ptr<Query>& query : fresh) {
      auto* owned = new std::shared_ptr<Query>(query);  // OnAddresses takes it back
      if (!ready) {
        OnAddresses(owned, ARES_ENOTINITIALIZED, 0, nullptr);
        continue;
      }
      ares_addrinfo_hints hints{};
      hints.ai_family = AF_UNSPEC;
      ares_getaddrinfo(channel, query->host.c_str(), nullptr, &hints, OnAddresses, owned);
    }
  }

  ares_channel channel = nullptr;
  bool ready = false;
  std::array<int, 2> wake{};
  std::mutex mutex;
  std::deque<std::shared_ptr<Query>> queue;
  std::atomic<bool> stopped{false};
  std::thread thread;
};

Resolver::Resolver(asio::any_io_executor executor) : impl_(std::make_unique<Impl>()), executor_(std::move(executor)) {}
Resolver::~Resolver() = default;

async::Task<absl::StatusOr<std::vector<asio::ip::address>>> Resolver::Resolve(std::string host,
                                                                              absl::Duration timeout) {
  asio::error_code error;
  const asio::ip::address literal = asio::ip::make_address(host, error);
  if (!error) co_return std::vector<asio::ip::address>{literal};
  auto query = std::make_shared<Query>(executor_);
  query->host = host;
  {
    std::lock_guard lock(impl_->mutex);
    impl_->queue.push_back(query);
  }
  impl_->Wake();
  const absl::Time deadline = absl::Now() + timeout;
  while (!query->done) {
    const absl::Status waited = co_await query->ended.Wait(deadline - absl::Now());
    if (absl::IsCancelled(waited)) co_return MakeNetError(NetError::kCancelled, "the name lookup was cancelled");
    if (absl::IsDeadlineExceeded(waited) && !query->done) {
      co_return MakeNetError(NetError::kTimeout, absl::StrCat("looking up the name ", host, " took longer than ",
                                                              absl::FormatDuration(timeout)));
    }
  }
  if (query->addresses.empty()) {
    co_return MakeNetError(NetError::kResolve,
                           absl::StrCat("the name ", host, " has no address (", ares_strerror(query->status), ")."));
  }
  co_return query->addresses;
}

}  // namespace poststelle::net
