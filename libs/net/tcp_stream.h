// The real stream: a non-blocking socket, and TLS directly on it.
#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>
#include <memory>
#include <string>

#include "libs/net/stream.h"
#include "libs/net/tls_context.h"

namespace poststelle::net {

// TLS works on the socket itself (SSL_set_fd), so that an idle connection keeps no buffers. One timer a stream: an
// operation that would block arms it, and its expiry cancels the socket's wait.
class TcpStream : public Stream {
 public:
  TcpStream(asio::ip::tcp::socket socket, std::shared_ptr<TlsContexts> contexts, std::string peer);
  ~TcpStream() override;

  asio::awaitable<absl::Status> Connect(asio::ip::tcp::endpoint endpoint, absl::Duration timeout);
  asio::awaitable<absl::StatusOr<size_t>> ReadSome(char* buffer, size_t size, absl::Duration timeout) override;
  asio::awaitable<absl::Status> Write(std::string_view bytes, absl::Duration timeout) override;
  asio::awaitable<absl::Status> StartTls(const TlsOptions& options, absl::Duration timeout) override;
  void Expect(uint64_t bytes) override { expected_ = bytes; }
  bool is_tls() const override { return ssl_ != nullptr; }
  std::optional<TlsPeer> tls_peer() const override;
  std::string remote_address() const override;
  void Wake() override;
  void Close() override;

 private:
  struct Core;
  enum class Ready { kRead, kWrite };
  // Until the socket is ready, the deadline, cancellation, or (if `wakeable`) Wake.
  asio::awaitable<absl::Status> Wait(Ready what, absl::Time deadline, absl::Duration timeout, std::string_view doing,
                                     bool wakeable);
  // Lets the kernel gather up to `bytes` before it says that the socket can be read.
  void SetLowWater(int bytes);
  // `executor` is that of the coroutine that is about to wait.
  void Arm(const asio::any_io_executor& executor, absl::Time deadline);
  absl::Status Fail(NetError error, const std::string& message);

  std::shared_ptr<Core> core_;
  std::shared_ptr<TlsContexts> contexts_;
  const std::string peer_;  // host:port, for messages
  SslPtr ssl_;
  uint64_t expected_ = 0;
  int low_water_ = 1;  // as the kernel knows it
};

}  // namespace poststelle::net
