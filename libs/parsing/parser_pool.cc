#include "libs/parsing/parser_pool.h"

#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <asio/experimental/as_tuple.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/read.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/write.hpp>

#include <csignal>
#include <mutex>
#include <vector>

#include "absl/strings/str_cat.h"
#include "libs/mail/scan.h"
#include "libs/parsing/frame.h"

extern char** environ;

namespace poststelle::parsing {
namespace {

constexpr auto kUse = asio::experimental::as_tuple(asio::use_awaitable);

std::string BesideThisProgram() {
  char path[4096];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof path);
  std::string self(path, size > 0 ? static_cast<size_t>(size) : 0);
  return self.substr(0, self.rfind('/') + 1) + "poststelle-parser";
}

}  // namespace

// One process, and our end of the socket pair to it.
class ParserPool::Child {
 public:
  static std::unique_ptr<Child> Start(const std::string& binary) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return nullptr;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    // The child must not inherit what this process blocks: it ends at SIGTERM like any program.
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    std::string name = binary;
    char* argv[] = {name.data(), nullptr};
    pid_t pid = -1;
    const int error = posix_spawn(&pid, binary.c_str(), &actions, &attributes, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    close(ends[1]);
    if (error != 0) {
      close(ends[0]);
      return nullptr;
    }
    return std::unique_ptr<Child>(new Child(pid, ends[0]));
  }
  ~Child() {
    if (fd_ >= 0) close(fd_);
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  // Ends the child and says how it had ended by itself, if it had.
  std::string Bury() {
    int status = 0;
    // A socket that was closed means that it is dying: give it its moment to be told apart from our own kill.
    for (int i = 0; i < 50; ++i) {
      if (waitpid(pid_, &status, WNOHANG) == pid_) {
        pid_ = 0;
        if (WIFSIGNALED(status)) return absl::StrCat("the parser died with signal ", WTERMSIG(status));
        return absl::StrCat("the parser ended with code ", WEXITSTATUS(status));
      }
      usleep(1000);
    }
    return "the parser did not answer";
  }

  // One message. Empty result: the child is of no more use; `why` says what happened.
  async::Task<std::optional<mail::ParsedMail>> Exchange(const std::string& raw, absl::Duration limit,
                                                        std::string& why) {
    asio::any_io_executor executor = co_await asio::this_coro::executor;
    asio::posix::stream_descriptor socket(executor, dup(fd_));
    auto expired = std::make_shared<bool>(false);
    asio::steady_timer timer(executor);
    timer.expires_after(absl::ToChronoNanoseconds(limit));
    const pid_t pid = pid_;
    timer.async_wait([expired, pid](asio::error_code error) {
      if (error) return;
      *expired = true;
      kill(pid, SIGKILL);  // ends the socket, and so the read below
    });
    std::string header = FrameHeader(static_cast<uint32_t>(raw.size()));
    auto [e1, n1] = co_await asio::async_write(socket, asio::buffer(header), kUse);
    if (!e1) {
      auto [e2, n2] = co_await asio::async_write(socket, asio::buffer(raw), kUse);
      e1 = e2;
    }
    std::string result;
    if (!e1) {
      auto [e3, n3] = co_await asio::async_read(socket, asio::buffer(header), kUse);
      e1 = e3;
      if (!e1) result.resize(FrameSize(header.data()));
    }
    if (!e1 && !result.empty()) {
      auto [e4, n4] = co_await asio::async_read(socket, asio::buffer(result), kUse);
      e1 = e4;
    }
    timer.cancel();
    mail::ParsedMail mail;
    if (!e1 && !*expired && mail.ParseFromString(result)) co_return mail;
    why = *expired ? absl::StrCat("the parser exceeded ", absl::FormatDuration(limit)) : Bury();
    co_return std::nullopt;
  }

 private:
  Child(pid_t pid, int fd) : pid_(pid), fd_(fd) {}
  pid_t pid_;
  int fd_;
};

struct ParserPool::State {
  State(const asio::any_io_executor& executor, Options o) : options(std::move(o)), slots(executor, options.children) {}
  const Options options;
  async::Budget slots;
  std::mutex mutex;
  std::vector<std::unique_ptr<Child>> idle;
};

ParserPool::ParserPool(asio::any_io_executor executor, Options options) {
  if (options.binary.empty()) options.binary = BesideThisProgram();
  state_ = std::make_shared<State>(executor, std::move(options));
}

ParserPool::~ParserPool() { Stop(); }

void ParserPool::Stop() {
  std::lock_guard lock(state_->mutex);
  state_->idle.clear();
}

async::Task<mail::ParsedMail> ParserPool::Parse(const std::string& raw) {
  std::string why;
  const bool fits = raw.size() <= state_->options.max_message_bytes;
  if (!fits) why = "it is too large";
  for (int i = 0; fits && i < state_->options.tries; ++i) {
    const absl::Status slot = co_await state_->slots.Acquire(1);
    if (!slot.ok()) {
      why = "the service was shutting down";
      break;
    }
    std::unique_ptr<Child> child;
    {
      std::lock_guard lock(state_->mutex);
      if (!state_->idle.empty()) {
        child = std::move(state_->idle.back());
        state_->idle.pop_back();
      }
    }
    if (child == nullptr) child = Child::Start(state_->options.binary);
    std::optional<mail::ParsedMail> parsed;
    if (child == nullptr) {
      why = absl::StrCat("the parser ", state_->options.binary, " could not be started");
    } else {
      parsed = co_await child->Exchange(raw, state_->options.wall_limit, why);
    }
    if (parsed) {
      std::lock_guard lock(state_->mutex);
      state_->idle.push_back(std::move(child));
    }
    child.reset();
    state_->slots.Release(1);
    if (parsed) co_return *std::move(parsed);
  }
  mail::ParsedMail fallback = mail::ScanHeaders(raw);
  fallback.set_undecodable(true);
  fallback.set_undecodable_reason(absl::StrCat("The message could not be decoded: ", why, "."));
  co_return fallback;
}

}  // namespace poststelle::parsing
