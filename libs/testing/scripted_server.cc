#include "libs/testing/scripted_server.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

#include "libs/testing/socket.h"

namespace poststelle::testing {

bool ScriptedServer::Connection::ReadMore() {
  char buffer[4096];
  const ssize_t got = recv(fd_, buffer, sizeof buffer, 0);
  if (got <= 0) return false;
  input_.append(buffer, static_cast<size_t>(got));
  return true;
}

std::vector<std::string> ScriptedServer::Connection::ReadCommand() {
  const auto line = [this](std::string& out) {
    size_t end = 0;
    while ((end = input_.find("\r\n")) == std::string::npos) {
      if (!ReadMore()) return false;
    }
    out = input_.substr(0, end);
    input_.erase(0, end + 2);
    return true;
  };
  std::string header;
  if (!line(header)) return {};
  std::vector<std::string> out;
  for (int left = std::atoi(header.c_str() + 1); left > 0; --left) {
    if (!line(header)) return {};
    const size_t size = static_cast<size_t>(std::atoi(header.c_str() + 1));
    while (input_.size() < size + 2) {
      if (!ReadMore()) return {};
    }
    out.push_back(input_.substr(0, size));
    input_.erase(0, size + 2);
  }
  return out;
}

std::string ScriptedServer::Connection::ReadUntil(const std::string& end) {
  size_t at = 0;
  while ((at = input_.find(end)) == std::string::npos) {
    if (!ReadMore()) return {};
  }
  std::string out = input_.substr(0, at + end.size());
  input_.erase(0, out.size());
  return out;
}

bool ScriptedServer::Connection::Write(const std::string& bytes) { return SendAll(fd_, bytes); }

void ScriptedServer::Connection::WaitForEnd() {
  while (ReadMore()) input_.clear();
}

ScriptedServer::ScriptedServer(Script script) : script_(std::move(script)), listener_(Listen(port_)) {
  acceptor_ = std::thread([this] { Accept(); });
}

void ScriptedServer::Accept() {
  while (true) {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    {
      std::lock_guard lock(mutex_);
      open_.insert(fd);
      if (ended_) shutdown(fd, SHUT_RDWR);
    }
    threads_.emplace_back([this, fd, number = connections_++] {
      Connection connection(*this, fd, number);
      script_(connection);
      std::lock_guard lock(mutex_);
      open_.erase(fd);
      close(fd);
    });
  }
}

ScriptedServer::~ScriptedServer() {
  ended_ = true;
  shutdown(listener_, SHUT_RDWR);
  {
    std::lock_guard lock(mutex_);
    for (const int fd : open_) shutdown(fd, SHUT_RDWR);
  }
  acceptor_.join();
  for (std::thread& thread : threads_) thread.join();
  close(listener_);
}

}  // namespace poststelle::testing
