#include "libs/testing/redis_server.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "libs/base/ids.h"
#include "libs/testing/socket.h"

namespace poststelle::testing {
namespace {

std::string Shell(const std::string& command) {
  FILE* pipe = popen(command.c_str(), "r");
  std::string out;
  char buffer[4096];
  size_t got = 0;
  while (pipe != nullptr && (got = fread(buffer, 1, sizeof buffer, pipe)) > 0) out.append(buffer, got);
  if (pipe != nullptr) pclose(pipe);
  return out;
}

// A cluster node talks to the others on its port + 10000, which must be a port too.
uint16_t FreeLowPort() {
  uint16_t port = 0;
  while ((port = FreePort()) > 55'000) {
  }
  return port;
}

}  // namespace

RedisServer::RedisServer(std::vector<std::string> options)
    : options_(std::move(options)),
      folder_(std::filesystem::temp_directory_path() / ("poststelle-redis-" + RandomId())),
      port_(FreeLowPort()) {
  std::filesystem::create_directory(folder_);
  Start();
}

RedisServer::~RedisServer() {
  Kill();
  std::filesystem::remove_all(folder_);
}

std::string RedisServer::url() const { return absl::StrCat("redis://127.0.0.1:", port_); }

void RedisServer::Start() {
  std::vector<std::string> words{"redis-server", "--port", absl::StrCat(port_), "--bind", "127.0.0.1",
                                 "--save",       "",       "--appendonly",      "no",     "--dir",
                                 folder_};
  words.insert(words.end(), options_.begin(), options_.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (freopen("/dev/null", "w", stdout) == nullptr) _exit(1);
    execvp("redis-server", argv.data());
    _exit(1);
  }
  EXPECT_TRUE(Eventually([this] { return Answers(port_); })) << "redis-server did not start";
}

void RedisServer::Kill() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void RedisServer::Pause() { kill(pid_, SIGSTOP); }
void RedisServer::Resume() { kill(pid_, SIGCONT); }

void RedisServer::BlockSaving() const {
  std::filesystem::create_directory(std::filesystem::path(folder_) / "dump.rdb");
  std::filesystem::create_directory(std::filesystem::path(folder_) / "dump.rdb" / "in-use");
}

std::string RedisServer::Cli(const std::string& command) const {
  return Shell(absl::StrCat("redis-cli -p ", port_, " ", command, " 2>&1"));
}

RedisCluster::RedisCluster() {
  std::string create = "--cluster create";
  for (int i = 0; i < 6; ++i) {
    nodes_.push_back(std::make_unique<RedisServer>(std::vector<std::string>{
        "--cluster-enabled", "yes", "--cluster-node-timeout", "500", "--cluster-replica-validity-factor", "0",
        "--repl-diskless-sync-delay", "0", "--appendonly", "no"}));
    absl::StrAppend(&create, " 127.0.0.1:", nodes_.back()->port());
  }
  const std::string said = nodes_[0]->Cli(create + " --cluster-replicas 1 --cluster-yes");
  EXPECT_NE(said.find("All 16384 slots covered"), std::string::npos) << said;
  for (const auto& node : nodes_) {
    EXPECT_TRUE(Eventually([&node] {
      const std::string info = node->Cli("cluster info");
      if (info.find("cluster_state:ok") == std::string::npos) return false;
      const std::string role = node->Cli("info replication");
      return role.find("role:master") != std::string::npos ? role.find("connected_slaves:1") != std::string::npos
                                                           : role.find("master_link_status:up") != std::string::npos;
    })) << node->Cli("cluster info");
  }
}

std::string RedisCluster::url() const {
  std::string out = "redis://";
  for (const auto& node : nodes_) absl::StrAppend(&out, out.size() > 8 ? "," : "", "127.0.0.1:", node->port());
  return out;
}

RedisServer& RedisCluster::ByPort(uint16_t port) {
  for (const auto& node : nodes_) {
    if (node->port() == port) return *node;
  }
  ADD_FAILURE() << "no node has port " << port;
  return *nodes_[0];
}

RedisServer& RedisCluster::MasterOf(const std::string& key) {
  const int slot = std::atoi(nodes_[0]->Cli(absl::StrCat("cluster keyslot '", key, "'")).c_str());
  // id ip:port@bus flags master ping pong epoch state ranges…
  for (const std::string& line : std::vector<std::string>(absl::StrSplit(nodes_[0]->Cli("cluster nodes"), '\n'))) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    for (size_t i = 8; i < words.size() && words[2].find("master") != std::string::npos; ++i) {
      int from = 0, to = 0;
      const int got = std::sscanf(words[i].c_str(), "%d-%d", &from, &to);
      if (got < 1 || slot < from || slot > (got == 2 ? to : from)) continue;
      const size_t colon = words[1].find(':');
      return ByPort(static_cast<uint16_t>(std::atoi(words[1].c_str() + colon + 1)));
    }
  }
  ADD_FAILURE() << "nobody serves " << key;
  return *nodes_[0];
}

}  // namespace poststelle::testing
