#include "libs/parsing/parser_pool.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <asio/bind_cancellation_slot.hpp>
#include <asio/experimental/as_tuple.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "libs/base/status_macros.h"
#include "libs/mail/scan.h"
#include "libs/parsing/frame.h"

namespace poststelle::parsing {
namespace {

using async::Task;
constexpr auto kUse = asio::experimental::as_tuple(asio::use_awaitable);
using Raws = std::vector<const std::string*>;
using Mails = std::vector<mail::ParsedMail>;

std::string BesideThisProgram() {
  char path[4096];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof path);
  std::string self(path, size > 0 ? static_cast<size_t>(size) : 0);
  return self.substr(0, self.rfind('/') + 1) + "poststelle-parser";
}

Task<bool> Cancelled() {
  const asio::cancellation_state state = co_await asio::this_coro::cancellation_state;
  co_return state.cancelled() != asio::cancellation_type::none;
}

// Single reads and writes: asio's composed operations ignore the total cancellation that a TaskScope emits. What was
// emitted while none of them was pending is seen by asking.
Task<bool> WriteAll(asio::posix::stream_descriptor& socket, std::string_view bytes) {
  while (!bytes.empty()) {
    if (co_await Cancelled()) co_return false;
    auto [error, n] = co_await socket.async_write_some(asio::buffer(bytes.data(), bytes.size()), kUse);
    if (error) co_return false;
    bytes.remove_prefix(n);
  }
  co_return true;
}

// `count` frames and nothing behind them: in one read where they are small. Grows with what arrives: an announced size
// is a child's word. `bodies` are parts of `out`.
Task<bool> ReadFrames(asio::posix::stream_descriptor& socket, size_t count, std::string& out,
                      std::vector<std::string_view>& bodies) {
  constexpr size_t kFirst = 16 << 10;
  constexpr size_t kStep = 1 << 20;
  std::vector<std::pair<size_t, size_t>> places;
  size_t begin = 0;           // of the frame that is coming in
  size_t end = kFrameHeader;  // of it, as far as is known
  size_t at = 0;
  out.resize(kFirst);
  while (places.size() < count) {
    if (co_await Cancelled()) co_return false;
    if (at == out.size()) out.resize(std::min(std::max(end, at + kFirst), at + kStep));
    auto [error, n] = co_await socket.async_read_some(asio::buffer(out.data() + at, out.size() - at), kUse);
    if (error) co_return false;
    at += n;
    while (places.size() < count && at >= end) {
      if (end == begin + kFrameHeader) {
        const uint32_t size = FrameSize(out.data() + begin);
        if (size > kMaxFrame) co_return false;
        end += size;
        if (size > 0) continue;
      }
      places.emplace_back(begin + kFrameHeader, end - begin - kFrameHeader);
      begin = end;
      end += kFrameHeader;
    }
  }
  for (const auto& [where, size] : places) bodies.emplace_back(out.data() + where, size);
  co_return at == begin;
}

// Grows with what arrives: the announced size is a child's word. `out` keeps what came before an end.
Task<bool> ReadAll(asio::posix::stream_descriptor& socket, size_t size, std::string& out) {
  constexpr size_t kStep = 1 << 20;
  out.clear();
  while (out.size() < size) {
    if (co_await Cancelled()) co_return false;
    const size_t at = out.size();
    out.resize(std::min(size, at + kStep));
    auto [error, n] = co_await socket.async_read_some(asio::buffer(out.data() + at, out.size() - at), kUse);
    out.resize(at + n);
    if (error) co_return false;
  }
  co_return true;
}

// Memory in which a child finds its mail. This process only writes to it, whatever the child may do.
class Shared {
 public:
  static std::unique_ptr<Shared> Make() {
    std::unique_ptr<Shared> shared(new Shared);
    shared->fd_ = memfd_create("mail", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (shared->fd_ < 0 || ftruncate(shared->fd_, kSharedBytes) != 0) return nullptr;
    void* const memory = mmap(nullptr, kSharedBytes, PROT_READ | PROT_WRITE, MAP_SHARED, shared->fd_, 0);
    if (memory == MAP_FAILED) return nullptr;
    shared->memory_ = static_cast<char*>(memory);
    // Whoever maps it after us can't write, and nobody can take pages away from under us. A kernel that knows no such
    // seal leaves it at that: what the child writes is never read.
    constexpr int kSize = F_SEAL_SHRINK | F_SEAL_GROW;
    if (fcntl(shared->fd_, F_ADD_SEALS, kSize | F_SEAL_FUTURE_WRITE) != 0 &&
        fcntl(shared->fd_, F_ADD_SEALS, kSize) != 0) {
      return nullptr;
    }
    return shared;
  }
  ~Shared() {
    Handed();
    if (memory_ != nullptr) munmap(memory_, kSharedBytes);
  }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;

  int fd() const { return fd_; }
  // The child has its descriptor.
  void Handed() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  // False if it does not fit.
  bool Put(std::string_view raw, size_t offset) {
    if (raw.size() > kSharedBytes || offset > kSharedBytes - raw.size()) return false;
    std::memcpy(memory_ + offset, raw.data(), raw.size());
    return true;
  }

 private:
  Shared() = default;
  int fd_ = -1;
  char* memory_ = nullptr;
};

}  // namespace

// One process, and our end of the socket pair to it. It ends by itself when that end is closed, also when this process
// dies; PR_SET_PDEATHSIG would end it with the thread that happened to start it.
class ParserPool::Child {
 public:
  static absl::StatusOr<std::unique_ptr<Child>> Start(const Options& options) {
    std::unique_ptr<Shared> shared = Shared::Make();
    if (shared == nullptr) return CantStart(options.binary, errno);
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return CantStart(options.binary, errno);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, shared->fd(), kSharedDescriptor);
    // Files of ours that somebody opened without O_CLOEXEC are none of its business.
    posix_spawn_file_actions_addclosefrom_np(&actions, kSharedDescriptor + 1);
    // The child must not inherit what this process blocks or ignores: it ends at SIGTERM like any program.
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t signals;
    sigfillset(&signals);
    posix_spawnattr_setsigdefault(&attributes, &signals);
    sigemptyset(&signals);
    posix_spawnattr_setsigmask(&attributes, &signals);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    std::string name = options.binary;
    std::string memory = absl::StrCat(options.max_memory_bytes);
    // Its own alarm rings after ours, and when we are not there any more.
    std::string seconds = absl::StrCat(absl::ToInt64Seconds(options.wall_limit) + 5);
    char* argv[] = {name.data(), memory.data(), seconds.data(), nullptr};
    char* environment[] = {nullptr};  // it needs no secret that may be in ours
    pid_t pid = -1;
    const int error = posix_spawn(&pid, options.binary.c_str(), &actions, &attributes, argv, environment);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    close(ends[1]);
    if (error != 0) {
      close(ends[0]);
      return CantStart(options.binary, error);
    }
    shared->Handed();
    return std::unique_ptr<Child>(new Child(pid, ends[0], std::move(shared)));
  }
  // Waits for the end: on a loop thread only after Bury().
  ~Child() {
    Kill();
    if (pid_ <= 0) return;
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // Ends it without waiting.
  void Kill() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
    if (pid_ > 0) kill(pid_, SIGKILL);
  }
  // True if it has ended; `how` is set if it did so by itself or by a signal.
  bool Ended(std::string& how) {
    int status = 0;
    if (pid_ > 0 && waitpid(pid_, &status, WNOHANG) == 0) return false;
    if (pid_ > 0 && WIFSIGNALED(status)) how = absl::StrCat("the parser died with signal ", WTERMSIG(status));
    if (pid_ > 0 && WIFEXITED(status)) how = absl::StrCat("the parser ended with code ", WEXITSTATUS(status));
    pid_ = 0;
    return true;
  }
  // Ends the child and says how it had ended by itself, if it had.
  Task<std::string> Bury() {
    std::string how = "the parser did not answer";
    // A socket that was closed means that it is dying: give it its moment to be told apart from our own kill.
    for (int i = 0; i < 50 && !co_await Cancelled(); ++i) {
      if (Ended(how)) co_return how;
      co_await Pause();
    }
    Kill();
    std::string ignored;
    // A process may take long to end (its memory is given back first). What is left after that waits for its
    // destructor.
    for (int i = 0; i < 1000 && !Ended(ignored); ++i) co_await Pause();
    co_return how;
  }

  // The first exchange. OK, or why this child can't serve.
  Task<absl::Status> Greet(const Options& options) {
    constexpr size_t kMaxReason = 300;
    std::string hello;
    std::string problem;
    bool expired = false;
    auto talk = [&](asio::posix::stream_descriptor& socket) -> Task<bool> {
      if (!co_await ReadAll(socket, 1, hello)) co_return false;
      if (hello[0] == kNoHello) co_await ReadAll(socket, kMaxReason, problem);
      co_return hello[0] == kHello;
    };
    if (co_await Within(options.start_limit, talk, expired)) co_return absl::OkStatus();
    if (co_await Cancelled()) {
      co_await Bury();
      co_return absl::CancelledError("parsing was cancelled");
    }
    const std::string how = co_await Bury();
    if (problem.empty()) problem = expired ? "it was not ready in time" : how;
    co_return absl::UnavailableError(absl::StrCat("the parser ", options.binary, " can't serve: ", problem));
  }

  // Messages that fit into the shared memory together, or a single one. Empty result: the child is of no more use and
  // has ended; `why` says what happened.
  Task<std::optional<Mails>> Exchange(const Raws& raws, absl::Duration limit, std::string& why) {
    std::string result;
    std::vector<std::string_view> bodies;
    bool expired = false;
    auto talk = [&](asio::posix::stream_descriptor& socket) -> Task<bool> {
      std::string requests;
      uint32_t offset = 0;
      bool shared = true;
      for (size_t i = 0; i < raws.size(); ++i) {
        const auto size = static_cast<uint32_t>(raws[i]->size());
        shared = shared && shared_->Put(*raws[i], offset);
        requests += EncodeRequest({size, offset, i + 1 < raws.size()});
        offset += size;
      }
      if (!shared && raws.size() > 1) co_return false;
      if (!co_await WriteAll(socket, requests)) co_return false;
      if (!shared && !co_await WriteAll(socket, *raws[0])) co_return false;
      co_return co_await ReadFrames(socket, raws.size(), result, bodies);
    };
    const bool answered = co_await Within(limit, talk, expired);
    Mails mails(bodies.size());
    bool legible = answered;
    for (size_t i = 0; legible && i < bodies.size(); ++i) {
      legible = mails[i].ParseFromArray(bodies[i].data(), static_cast<int>(bodies[i].size()));
    }
    if (legible && !expired) co_return mails;
    why = co_await Bury();
    if (expired) why = absl::StrCat("the parser exceeded ", absl::FormatDuration(limit));
    co_return std::nullopt;
  }

 private:
  Child(pid_t pid, int fd, std::unique_ptr<Shared> shared) : pid_(pid), fd_(fd), shared_(std::move(shared)) {}

  static absl::Status CantStart(const std::string& binary, int error) {
    return absl::UnavailableError(
        absl::StrCat("the parser ", binary, " could not be started: ", std::string(std::strerror(error))));
  }
  // Without asio's cancellation: the end of a child is waited for in any case.
  static Task<void> Pause() {
    asio::steady_timer timer(co_await asio::this_coro::executor);
    timer.expires_after(std::chrono::milliseconds(2));
    co_await timer.async_wait(asio::bind_cancellation_slot(asio::cancellation_slot(), kUse));
  }
  // Runs `talk` on our end of the socket; at the limit the child is killed, which ends the socket and so `talk`.
  template <typename Talk>
  Task<bool> Within(absl::Duration limit, Talk& talk, bool& expired) {
    asio::any_io_executor executor = co_await asio::this_coro::executor;
    asio::posix::stream_descriptor socket(executor);
    asio::error_code failed;
    socket.assign(fd_, failed);
    if (failed) co_return false;
    // A handler that is queued already still runs after cancel(): `running` tells it that its child may be gone.
    struct Watch {
      bool running = true;
      bool expired = false;
    };
    auto watch = std::make_shared<Watch>();
    asio::steady_timer timer(executor);
    timer.expires_after(absl::ToChronoNanoseconds(limit));
    timer.async_wait([watch, pid = pid_](asio::error_code error) {
      if (error || !watch->running) return;
      watch->expired = true;
      kill(pid, SIGKILL);
    });
    const bool ok = co_await talk(socket);
    watch->running = false;
    timer.cancel();
    socket.release();
    expired = watch->expired;
    co_return ok;
  }

  pid_t pid_;
  int fd_;
  const std::unique_ptr<Shared> shared_;
};

struct ParserPool::State {
  State(const asio::any_io_executor& executor, Options o) : options(std::move(o)), slots(executor, options.children) {}
  const Options options;
  async::Budget slots;
  std::mutex mutex;
  std::vector<std::unique_ptr<Child>> idle;

  // A child that has said hello.
  Task<absl::StatusOr<std::unique_ptr<Child>>> Take() {
    {
      const std::lock_guard lock(mutex);
      if (!idle.empty()) {
        std::unique_ptr<Child> child = std::move(idle.back());
        idle.pop_back();
        co_return child;
      }
    }
    absl::StatusOr<std::unique_ptr<Child>> child = Child::Start(options);
    if (!child.ok()) co_return child.status();
    absl::Status greeted = co_await (*child)->Greet(options);
    if (!greeted.ok()) co_return greeted;
    co_return child;
  }
  void GiveBack(std::unique_ptr<Child> child) {
    const std::lock_guard lock(mutex);
    idle.push_back(std::move(child));
  }
  // Gives `raws` to a child as soon as one is free. Empty: the child did not get through, as `why` says.
  Task<absl::StatusOr<std::optional<Mails>>> Try(const Raws& raws, std::string& why) {
    const absl::Status slot = co_await slots.Acquire(1);
    if (!slot.ok()) co_return slot;
    absl::StatusOr<std::unique_ptr<Child>> child = co_await Take();
    if (!child.ok()) {
      slots.Release(1);
      co_return child.status();
    }
    std::optional<Mails> parsed = co_await (*child)->Exchange(raws, options.wall_limit, why);
    if (parsed) {
      GiveBack(*std::move(child));
    } else {
      child->reset();
    }
    slots.Release(1);
    if (!parsed && co_await Cancelled()) co_return absl::CancelledError("parsing was cancelled");
    co_return parsed;
  }
};

ParserPool::ParserPool(asio::any_io_executor executor, Options options) {
  if (options.binary.empty()) options.binary = BesideThisProgram();
  state_ = std::make_shared<State>(executor, std::move(options));
}

ParserPool::~ParserPool() { Stop(); }

void ParserPool::Stop() {
  std::lock_guard lock(state_->mutex);
  for (const std::unique_ptr<Child>& child : state_->idle) child->Kill();  // all at once, then wait for each
  state_->idle.clear();
}

Task<absl::StatusOr<mail::ParsedMail>> ParserPool::Parse(const std::string& raw) {
  std::string why;
  const bool fits = raw.size() <= state_->options.max_message_bytes;
  if (!fits) why = "it is too large";
  const Raws alone{&raw};
  for (int i = 0; fits && i < state_->options.tries; ++i) {
    PS_CO_ASSIGN_OR_RETURN(std::optional<Mails> parsed, co_await state_->Try(alone, why));
    if (parsed) co_return std::move(parsed->front());
  }
  mail::ParsedMail fallback = mail::ScanHeaders(raw);
  fallback.set_undecodable(true);
  fallback.set_undecodable_reason(absl::StrCat("The message could not be decoded: ", why, "."));
  co_return fallback;
}

Task<absl::StatusOr<std::vector<mail::ParsedMail>>> ParserPool::ParseAll(std::vector<const std::string*> raws) {
  size_t bytes = 0;
  for (const std::string* raw : raws) bytes += raw->size();
  if (raws.size() > 1 && bytes <= kTogetherBytes) {
    std::string why;
    PS_CO_ASSIGN_OR_RETURN(std::optional<Mails> parsed, co_await state_->Try(raws, why));
    if (parsed) co_return *std::move(parsed);
  }
  Mails mails;
  for (const std::string* raw : raws) {
    PS_CO_ASSIGN_OR_RETURN(mail::ParsedMail mail, co_await Parse(*raw));
    mails.push_back(std::move(mail));
  }
  co_return mails;
}

}  // namespace poststelle::parsing
