// c-ares on a thread of its own. For the files of libs/net that ask for names; they alone see ares.h.
#pragma once

#include <ares.h>

#include <array>
#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>

namespace poststelle::net {

// The channel belongs to the thread; everybody else puts what is to be asked into a queue and wakes it through a pipe.
class CaresChannel {
 public:
  // `name_servers`: ADDRESS[:PORT], separated by commas, to be asked instead of the configured ones.
  explicit CaresChannel(const std::string& name_servers = "");
  // Ends what is pending with ARES_EDESTRUCTION.
  ~CaresChannel();
  CaresChannel(const CaresChannel&) = delete;
  CaresChannel& operator=(const CaresChannel&) = delete;

  // Runs `start`, which begins a query, on the thread; with null if c-ares could not be set up. Thread-safe.
  void Ask(std::function<void(ares_channel)> start);

 private:
  // c-ares tells which of its sockets wait for what; called on the thread.
  static void OnSocket(void* self, ares_socket_t socket, int readable, int writable);
  void Wake() const;
  void Loop();
  void Begin();

  ares_channel channel_ = nullptr;
  bool ready_ = false;
  std::map<ares_socket_t, short> sockets_;  // what each of the channel's sockets is polled for; the thread's
  std::array<int, 2> wake_{};
  std::mutex mutex_;
  std::deque<std::function<void(ares_channel)>> queue_;  // guarded by mutex_
  std::atomic<bool> stopped_{false};
  std::thread thread_;
};

}  // namespace poststelle::net
