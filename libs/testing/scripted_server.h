// A TCP server that does what the test says, connection by connection.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace poststelle::testing {

class ScriptedServer {
 public:
  // One accepted connection, in a thread of its own; it ends when the script returns.
  class Connection {
   public:
    Connection(ScriptedServer& server, int fd, int number) : server_(server), fd_(fd), number_(number) {}
    int number() const { return number_; }  // 0 for the server's first
    // The next RESP command (an array of bulk strings); empty when the peer is gone.
    std::vector<std::string> ReadCommand();
    // What the peer sends up to `end` and with it; empty when it is gone before.
    std::string ReadUntil(const std::string& end);
    // False when the peer is gone.
    bool Write(const std::string& bytes);
    // Until the peer has sent anything. False when it is gone.
    bool WaitForBytes() { return !input_.empty() || ReadMore(); }
    // Until the peer is gone or the server ends.
    void WaitForEnd();
    bool ended() const { return server_.ended_; }

   private:
    bool ReadMore();
    ScriptedServer& server_;
    const int fd_;
    const int number_;
    std::string input_;
  };
  using Script = std::function<void(Connection&)>;

  explicit ScriptedServer(Script script);
  ~ScriptedServer();
  ScriptedServer(const ScriptedServer&) = delete;
  ScriptedServer& operator=(const ScriptedServer&) = delete;
  uint16_t port() const { return port_; }
  int connections() const { return connections_; }

 private:
  void Accept();
  const Script script_;
  uint16_t port_ = 0;
  int listener_ = -1;
  std::atomic<int> connections_{0};
  std::atomic<bool> ended_{false};
  std::mutex mutex_;
  std::set<int> open_;                // guarded: connections whose script runs
  std::vector<std::thread> threads_;  // acceptor's alone until it is joined
  std::thread acceptor_;
};

}  // namespace poststelle::testing
