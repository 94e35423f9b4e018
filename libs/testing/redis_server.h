// Real redis-servers of a test's own, one or a cluster. Not thread-safe.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace poststelle::testing {

// A redis-server without persistence, in a folder of its own. Dies with this object, and with the test.
class RedisServer {
 public:
  // `options` are redis-server's, as on its command line.
  explicit RedisServer(std::vector<std::string> options = {});
  ~RedisServer();
  RedisServer(const RedisServer&) = delete;
  RedisServer& operator=(const RedisServer&) = delete;

  uint16_t port() const { return port_; }
  std::string url() const;
  // On the same port as before; returns when it accepts connections.
  void Start();
  void Kill();    // SIGKILL
  void Pause();   // SIGSTOP: connections stay, nothing is answered
  void Resume();  // SIGCONT
  // From now on saving fails: a folder has its file's name.
  void BlockSaving() const;
  // redis-cli's output for `command` at this server.
  std::string Cli(const std::string& command) const;

 private:
  const std::vector<std::string> options_;
  std::string folder_;
  uint16_t port_ = 0;
  pid_t pid_ = -1;
};

// Six servers, made a cluster: three masters with one replica each. A replica takes over about a second after its
// master's death.
class RedisCluster {
 public:
  RedisCluster();
  // All six, comma-separated.
  std::string url() const;
  RedisServer& node(size_t i) { return *nodes_[i]; }
  size_t size() const { return nodes_.size(); }
  RedisServer& ByPort(uint16_t port);
  // The master that serves the slot of `key`.
  RedisServer& MasterOf(const std::string& key);

 private:
  std::vector<std::unique_ptr<RedisServer>> nodes_;
};

}  // namespace poststelle::testing
