#include "libs/net/cares_channel.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cstdlib>
#include <vector>

namespace poststelle::net {
namespace {

constexpr int kTryMs = 1500;
constexpr int kTries = 2;
constexpr timeval kLongestWait{5, 0};

}  // namespace

CaresChannel::CaresChannel(const std::string& name_servers) {
  ares_library_init(ARES_LIB_INIT_ALL);
  if (pipe2(wake_.data(), O_CLOEXEC | O_NONBLOCK) != 0) std::abort();
  ares_options options{};
  options.timeout = kTryMs;
  options.tries = kTries;
  options.sock_state_cb = OnSocket;
  options.sock_state_cb_data = this;
  const int given = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB;
  ready_ = ares_init_options(&channel_, &options, given) == ARES_SUCCESS;
  if (ready_ && !name_servers.empty() && ares_set_servers_ports_csv(channel_, name_servers.c_str()) != ARES_SUCCESS) {
    ares_destroy(channel_);
    ready_ = false;
  }
  thread_ = std::thread([this] { Loop(); });
}

CaresChannel::~CaresChannel() {
  stopped_ = true;
  Wake();
  thread_.join();
  if (ready_) ares_destroy(channel_);
  close(wake_[0]);
  close(wake_[1]);
  ares_library_cleanup();
}

void CaresChannel::Ask(std::function<void(ares_channel)> start) {
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(start));
  }
  Wake();
}

void CaresChannel::Wake() const {
  // A full pipe has a byte in it already, which is all a wake-up needs.
  [[maybe_unused]] const ssize_t n = write(wake_[1], "x", 1);
}

void CaresChannel::OnSocket(void* self, ares_socket_t socket, int readable, int writable) {
  std::map<ares_socket_t, short>& sockets = static_cast<CaresChannel*>(self)->sockets_;
  if (readable == 0 && writable == 0) {
    sockets.erase(socket);
  } else {
    sockets[socket] = static_cast<short>((readable != 0 ? POLLIN : 0) | (writable != 0 ? POLLOUT : 0));
  }
}

// poll(), because select() knows no descriptor above 1023 and a fetcher with many sessions has more.
void CaresChannel::Loop() {
  std::vector<pollfd> watched;
  while (!stopped_) {
    Begin();
    watched.assign(1, {wake_[0], POLLIN, 0});
    for (const auto& [socket, events] : sockets_) watched.push_back({socket, events, 0});
    timeval longest = kLongestWait;
    timeval space{};
    const timeval* wait = ready_ ? ares_timeout(channel_, &longest, &space) : &longest;
    const auto wait_ms = static_cast<int>(wait->tv_sec * 1000 + (wait->tv_usec + 999) / 1000);
    if (poll(watched.data(), watched.size(), wait_ms) < 0) continue;
    if (watched[0].revents != 0) {
      char drained[64];
      [[maybe_unused]] const ssize_t n = read(wake_[0], drained, sizeof drained);
    }
    if (!ready_) continue;
    for (size_t i = 1; i < watched.size(); ++i) {
      const short got = watched[i].revents;
      if (got == 0) continue;
      ares_process_fd(channel_, (got & ~POLLOUT) != 0 ? watched[i].fd : ARES_SOCKET_BAD,
                      (got & POLLOUT) != 0 ? watched[i].fd : ARES_SOCKET_BAD);
    }
    ares_process_fd(channel_, ARES_SOCKET_BAD, ARES_SOCKET_BAD);  // what has run out of time
  }
}

void CaresChannel::Begin() {
  std::deque<std::function<void(ares_channel)>> fresh;
  {
    std::lock_guard lock(mutex_);
    fresh.swap(queue_);
  }
  for (const std::function<void(ares_channel)>& start : fresh) start(ready_ ? channel_ : nullptr);
}

}  // namespace poststelle::net
