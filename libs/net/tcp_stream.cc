#include "libs/net/tcp_stream.h"

#include <openssl/err.h>
#include <asio/bind_executor.hpp>
#include <asio/experimental/as_tuple.hpp>
#include <asio/post.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "libs/base/sv.h"
#include "libs/net/certificate.h"

namespace poststelle::net {
namespace {

constexpr auto kUse = asio::experimental::as_tuple(asio::use_awaitable);

// OpenSSL may have taken so much already that it can't decrypt yet: the beginning of a record.
constexpr uint64_t kHeldBack = 17 << 10;
constexpr uint64_t kWorthGathering = 4 << 10;
constexpr uint64_t kGathered = 48 << 10;  // what a read takes at once, less a record
constexpr absl::Duration kGatherTime = absl::Milliseconds(200);

}  // namespace

// Outlives the stream until the last handler that may end a wait has run. Such handlers run on the executor of the
// coroutine that waits, so that they never meet a wait that is only about to begin. That need not be the executor of
// the socket: one task may dial and the next one read.
struct TcpStream::Core {
  explicit Core(asio::ip::tcp::socket s) : socket(std::move(s)), timer(socket.get_executor()) {}

  // Ends the wait that is the `turn`th, if it has not ended by itself. On the executor of its coroutine.
  void EndWait(uint64_t turn) {
    if (armed != turn) return;
    asio::error_code ignored;  // the socket may be closed by now, then there is nothing to end
    socket.cancel(ignored);
  }
  bool TakeWoken() {
    const std::lock_guard lock(mutex);
    return std::exchange(woken, false);
  }

  asio::ip::tcp::socket socket;
  asio::steady_timer timer;
  // Counts up with the beginning and the end of each wait, so that a late handler never hits the next one. Changed by
  // the coroutine alone; a handler of another executor may still look.
  std::atomic<uint64_t> armed = 0;
  bool expired = false;
  bool patient = false;  // ReadSome waits for more than a byte: the end of its patience is no failure

  std::mutex mutex;
  bool woken = false;            // guarded: by Wake, until ReadSome has said so
  asio::any_io_executor reader;  // guarded: of the coroutine that waits in ReadSome; empty if none does
};

namespace {

// A cancellation that came while the coroutine waited for something else must not be slept through.
asio::awaitable<bool> Cancelled() {
  const asio::cancellation_state state = co_await asio::this_coro::cancellation_state;
  co_return state.cancelled() != asio::cancellation_type::none;
}

}  // namespace

TcpStream::TcpStream(asio::ip::tcp::socket socket, std::shared_ptr<TlsContexts> contexts, std::string peer)
    : core_(std::make_shared<Core>(std::move(socket))), contexts_(std::move(contexts)), peer_(std::move(peer)) {}

TcpStream::~TcpStream() { Close(); }

std::optional<TlsPeer> TcpStream::tls_peer() const {
  if (ssl_ == nullptr) return std::nullopt;
  TlsPeer out;
  out.version = SSL_get_version(ssl_.get());
  if (X509* certificate = SSL_get0_peer_certificate(ssl_.get())) out.subject = Describe(certificate).subject;
  return out;
}

std::string TcpStream::remote_address() const {
  asio::error_code error;
  const asio::ip::tcp::endpoint remote = core_->socket.remote_endpoint(error);
  if (error) return "";
  const std::string address = remote.address().to_string();
  return remote.address().is_v6() ? absl::StrCat("[", address, "]:", remote.port())
                                  : absl::StrCat(address, ":", remote.port());
}

void TcpStream::Close() {
  ++core_->armed;
  core_->timer.cancel();
  asio::error_code ignored;  // closing twice, or what the peer has closed, changes nothing
  core_->socket.close(ignored);
}

void TcpStream::Wake() {
  const std::lock_guard lock(core_->mutex);
  core_->woken = true;
  if (!core_->reader) return;
  asio::post(core_->reader, [core = core_, turn = core_->armed.load()] { core->EndWait(turn); });
}

absl::Status TcpStream::Fail(NetError error, const std::string& message) {
  Close();
  return MakeNetError(error, message);
}

void TcpStream::Arm(const asio::any_io_executor& executor, absl::Time deadline) {
  const uint64_t turn = ++core_->armed;
  core_->expired = false;
  core_->timer.expires_after(absl::ToChronoNanoseconds(std::max(deadline - absl::Now(), absl::ZeroDuration())));
  core_->timer.async_wait(asio::bind_executor(executor, [core = core_, turn](asio::error_code error) {
    if (error || core->armed != turn) return;
    core->expired = true;
    core->EndWait(turn);
  }));
}

asio::awaitable<absl::Status> TcpStream::Wait(Ready what, absl::Time deadline, absl::Duration timeout,
                                              std::string_view doing, bool wakeable) {
  if (co_await Cancelled()) co_return Fail(NetError::kCancelled, "the connection was given up");
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  Arm(executor, deadline);
  if (wakeable) {
    const std::lock_guard lock(core_->mutex);
    core_->reader = executor;
    // Woken before: no handler comes any more that would end the wait.
    if (core_->woken) asio::post(executor, [core = core_, turn = core_->armed.load()] { core->EndWait(turn); });
  }
  const auto type = what == Ready::kRead ? asio::socket_base::wait_read : asio::socket_base::wait_write;
  auto [error] = co_await core_->socket.async_wait(type, kUse);
  ++core_->armed;
  core_->timer.cancel();
  bool woken = false;
  if (wakeable) {
    const std::lock_guard lock(core_->mutex);
    core_->reader = {};
    woken = core_->woken;
  }
  if (core_->expired && core_->patient) co_return absl::OkStatus();  // what there is has to do
  if (core_->expired) {
    co_return Fail(NetError::kTimeout, absl::StrCat("no ", Av(doing), " within ", absl::FormatDuration(timeout), "."));
  }
  if (error == asio::error::operation_aborted) {
    if (woken && core_->socket.is_open() && !co_await Cancelled()) co_return absl::OkStatus();
    co_return Fail(NetError::kCancelled, "the connection was given up");
  }
  if (error) co_return Fail(NetError::kIo, absl::StrCat("the connection failed: ", error.message(), "."));
  co_return absl::OkStatus();
}

asio::awaitable<absl::Status> TcpStream::Connect(asio::ip::tcp::endpoint endpoint, absl::Duration timeout) {
  if (co_await Cancelled()) co_return Fail(NetError::kCancelled, "the connection was given up");
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  Arm(executor, absl::Now() + timeout);
  auto [error] = co_await core_->socket.async_connect(endpoint, kUse);
  ++core_->armed;
  core_->timer.cancel();
  if (core_->expired) {
    co_return Fail(NetError::kTimeout, absl::StrCat("no connection within ", absl::FormatDuration(timeout), "."));
  }
  if (error == asio::error::operation_aborted) co_return Fail(NetError::kCancelled, "the connection was given up");
  if (error) co_return Fail(NetError::kConnect, absl::StrCat(endpoint.address().to_string(), ": ", error.message()));
  asio::error_code ignored;  // performance and liveness hints; a socket without them works
  core_->socket.set_option(asio::ip::tcp::no_delay(true), ignored);
  core_->socket.set_option(asio::socket_base::keep_alive(true), ignored);
  core_->socket.non_blocking(true);
  core_->socket.native_non_blocking(true);
  co_return absl::OkStatus();
}

void TcpStream::SetLowWater(int bytes) {
  if (bytes == low_water_) return;
  asio::error_code ignored;  // without it we are woken more often
  core_->socket.set_option(asio::socket_base::receive_low_watermark(bytes), ignored);
  low_water_ = bytes;
}

asio::awaitable<absl::StatusOr<size_t>> TcpStream::ReadSome(char* buffer, size_t size, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  uint64_t expected = std::exchange(expected_, 0);
  while (true) {
    if (!core_->socket.is_open()) co_return MakeNetError(NetError::kClosed, "the connection is closed.");
    Ready next = Ready::kRead;
    if (ssl_ != nullptr) {
      ERR_clear_error();
      size_t got = 0;
      const int rc = SSL_read_ex(ssl_.get(), buffer, size, &got);
      if (rc == 1) {
        // Records that are here already go with it. An error among them comes again at the next call.
        size_t more = 0;
        while (got < size && SSL_has_pending(ssl_.get()) == 1 &&
               SSL_read_ex(ssl_.get(), buffer + got, size - got, &more) == 1) {
          got += more;
        }
        co_return got;
      }
      const int why = SSL_get_error(ssl_.get(), rc);
      if (why == SSL_ERROR_ZERO_RETURN) co_return Fail(NetError::kClosed, "the server closed the connection.");
      if (why == SSL_ERROR_WANT_WRITE) {
        next = Ready::kWrite;
      } else if (why != SSL_ERROR_WANT_READ) {
        co_return Fail(NetError::kClosed, "the connection ended without the TLS farewell, so it may have been cut.");
      }
    } else {
      const ssize_t got = ::recv(core_->socket.native_handle(), buffer, size, 0);
      if (got > 0) co_return static_cast<size_t>(got);
      if (got == 0) co_return Fail(NetError::kClosed, "the server closed the connection.");
      if (errno == EINTR) continue;
      if (errno != EAGAIN)
        co_return Fail(NetError::kClosed, absl::StrCat("the connection broke: ", std::strerror(errno), "."));
    }
    if (core_->TakeWoken()) co_return size_t{0};
    // Not more than what is certain to come in; a slow link may still take long for it, or the server stop.
    const uint64_t coming = expected > kHeldBack ? expected - kHeldBack : 0;
    const bool gather = coming > kWorthGathering && next == Ready::kRead;
    SetLowWater(gather ? static_cast<int>(std::min<uint64_t>(coming, kGathered)) : 1);
    expected = 0;
    core_->patient = gather;
    absl::Status ready =
        co_await Wait(next, gather ? std::min(deadline, absl::Now() + kGatherTime) : deadline, timeout, "answer", true);
    core_->patient = false;
    if (!ready.ok()) co_return ready;
    if (core_->TakeWoken()) co_return size_t{0};
  }
}

asio::awaitable<absl::Status> TcpStream::Write(std::string_view bytes, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (!bytes.empty()) {
    if (!core_->socket.is_open()) co_return MakeNetError(NetError::kClosed, "the connection is closed.");
    Ready next = Ready::kWrite;
    if (ssl_ != nullptr) {
      ERR_clear_error();
      size_t sent = 0;
      const int rc = SSL_write_ex(ssl_.get(), bytes.data(), bytes.size(), &sent);
      if (rc == 1) {
        bytes.remove_prefix(sent);
        continue;
      }
      const int why = SSL_get_error(ssl_.get(), rc);
      if (why == SSL_ERROR_WANT_READ) {
        next = Ready::kRead;
      } else if (why != SSL_ERROR_WANT_WRITE) {
        co_return MakeNetError(NetError::kClosed, "the server closed the connection.");
      }
    } else {
      const ssize_t sent = ::send(core_->socket.native_handle(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent >= 0) {
        bytes.remove_prefix(static_cast<size_t>(sent));
        continue;
      }
      if (errno == EINTR) continue;
      if (errno != EAGAIN)
        co_return MakeNetError(NetError::kClosed, absl::StrCat("the connection broke: ", std::strerror(errno), "."));
    }
    absl::Status ready = co_await Wait(next, deadline, timeout, "room to send", false);
    if (!ready.ok()) co_return ready;
  }
  co_return absl::OkStatus();
}

asio::awaitable<absl::Status> TcpStream::StartTls(const TlsOptions& options, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  auto made = contexts_->NewClient(options, peer_, core_->socket.native_handle());
  if (!made.ok()) {
    Close();
    co_return made.status();
  }
  SslPtr ssl = *std::move(made);
  while (true) {
    ERR_clear_error();
    const int rc = SSL_do_handshake(ssl.get());
    if (rc == 1) break;
    const int why = SSL_get_error(ssl.get(), rc);
    if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) {
      absl::Status explained = ExplainHandshake(ssl.get(), options.server_name);
      Close();
      co_return explained;
    }
    absl::Status ready = co_await Wait(why == SSL_ERROR_WANT_READ ? Ready::kRead : Ready::kWrite, deadline, timeout,
                                       "answer to the TLS handshake", false);
    if (!ready.ok()) co_return ready;
  }
  ssl_ = std::move(ssl);
  co_return absl::OkStatus();
}

}  // namespace poststelle::net
