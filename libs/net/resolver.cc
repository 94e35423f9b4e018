#include "libs/net/resolver.h"

#include <ares.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "libs/net/stream.h"

namespace poststelle::net {
namespace {

constexpr int kTryMs = 1500;
constexpr int kTries = 2;
constexpr timeval kLongestWait{5, 0};

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

// The address that `host` is by itself.
std::optional<asio::ip::address> ParseLiteral(const std::string& host) {
  asio::error_code error;
  asio::ip::address address = asio::ip::make_address(host, error);
  if (!error) return address;
  in_addr old{};  // the spellings of old: fewer than four numbers, octal, hexadecimal
  if (inet_aton(host.c_str(), &old) != 0) return asio::ip::address_v4(ntohl(old.s_addr));
  return std::nullopt;
}

// The channel belongs to the thread; everybody else puts queries into the queue and wakes it through a pipe.
struct Channel {
  Channel() {
    ares_library_init(ARES_LIB_INIT_ALL);
    if (pipe2(wake.data(), O_CLOEXEC | O_NONBLOCK) != 0) std::abort();
    ares_options options{};
    options.timeout = kTryMs;
    options.tries = kTries;
    options.sock_state_cb = OnSocket;
    options.sock_state_cb_data = this;
    const int given = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB;
    ready = ares_init_options(&channel, &options, given) == ARES_SUCCESS;
    thread = std::thread([this] { Loop(); });
  }
  ~Channel() {
    stopped = true;
    Wake();
    thread.join();
    if (ready) ares_destroy(channel);  // ends what is pending
    close(wake[0]);
    close(wake[1]);
    ares_library_cleanup();
  }
  void Ask(std::shared_ptr<Query> query) {
    {
      std::lock_guard lock(mutex);
      queue.push_back(std::move(query));
    }
    Wake();
  }
  void Wake() const {
    // A full pipe has a byte in it already, which is all a wake-up needs.
    [[maybe_unused]] const ssize_t n = write(wake[1], "x", 1);
  }
  // c-ares tells which of its sockets wait for what; called on the thread.
  static void OnSocket(void* self, ares_socket_t socket, int readable, int writable) {
    std::map<ares_socket_t, short>& sockets = static_cast<Channel*>(self)->sockets;
    if (readable == 0 && writable == 0) {
      sockets.erase(socket);
    } else {
      sockets[socket] = static_cast<short>((readable != 0 ? POLLIN : 0) | (writable != 0 ? POLLOUT : 0));
    }
  }
  // poll(), because select() knows no descriptor above 1023 and a fetcher with many sessions has more.
  void Loop() {
    std::vector<pollfd> watched;
    while (!stopped) {
      Begin();
      watched.assign(1, {wake[0], POLLIN, 0});
      for (const auto& [socket, events] : sockets) watched.push_back({socket, events, 0});
      timeval longest = kLongestWait;
      timeval space{};
      const timeval* wait = ready ? ares_timeout(channel, &longest, &space) : &longest;
      const auto wait_ms = static_cast<int>(wait->tv_sec * 1000 + (wait->tv_usec + 999) / 1000);
      if (poll(watched.data(), watched.size(), wait_ms) < 0) continue;
      if (watched[0].revents != 0) {
        char drained[64];
        [[maybe_unused]] const ssize_t n = read(wake[0], drained, sizeof drained);
      }
      if (!ready) continue;
      for (size_t i = 1; i < watched.size(); ++i) {
        const short got = watched[i].revents;
        if (got == 0) continue;
        ares_process_fd(channel, (got & ~POLLOUT) != 0 ? watched[i].fd : ARES_SOCKET_BAD,
                        (got & POLLOUT) != 0 ? watched[i].fd : ARES_SOCKET_BAD);
      }
      ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);  // what has run out of time
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
  std::map<ares_socket_t, short> sockets;  // what each of the channel's sockets is polled for; the thread's
  std::array<int, 2> wake{};
  std::mutex mutex;
  std::deque<std::shared_ptr<Query>> queue;
  std::atomic<bool> stopped{false};
  std::thread thread;
};

class CaresResolver : public Resolver {
 public:
  explicit CaresResolver(asio::any_io_executor executor) : executor_(std::move(executor)) {}

  async::Task<absl::StatusOr<std::vector<asio::ip::address>>> Resolve(std::string host,
                                                                      absl::Duration timeout) override {
    if (std::optional<asio::ip::address> literal = ParseLiteral(host)) {
      co_return std::vector<asio::ip::address>{*literal};
    }
    auto query = std::make_shared<Query>(executor_);
    query->host = host;
    channel_.Ask(query);
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

 private:
  const asio::any_io_executor executor_;
  Channel channel_;
};

}  // namespace

std::unique_ptr<Resolver> MakeResolver(asio::any_io_executor executor) {
  return std::make_unique<CaresResolver>(std::move(executor));
}

}  // namespace poststelle::net
