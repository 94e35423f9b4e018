// A byte stream to a server: TCP, and TLS on the same socket. The seam between protocol drivers and the network.
#pragma once

#include <asio/awaitable.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace poststelle::net {

// How a server's certificate is judged. TLS 1.2 or newer, SNI and, without a pin, name check against `server_name`
// always.
struct TlsOptions {
  std::string server_name;          // the configured name, never a CNAME's target
  std::string ca_certificates_pem;  // empty: the system's; otherwise only these are trusted
  // SHA-256 of the one SubjectPublicKeyInfo that is trusted, in lower-case hexadecimal; empty: authorities are. Names,
  // issuer and dates of the certificate are then not looked at.
  std::string pinned_key_sha256;
};

// Why an operation on a stream failed; carried as the absl::Status payload kNetErrorUrl so that a policy can tell
// apart what a message text would have to be parsed for.
enum class NetError {
  kResolve,
  kConnect,
  kTimeout,
  kClosed,
  kTls,
  kCertificateExpired,
  kCertificateName,
  kCertificateIssuer,
  kCancelled,
  kIo,
  kEgress,
  kCertificateKey,  // not the pinned one
};
absl::Status MakeNetError(NetError error, std::string_view message);
// The error behind a status that this library made; kIo for any other.
NetError GetNetError(const absl::Status& status);
// True if this library made the status.
bool IsNetError(const absl::Status& status);
// What docs/errors.md calls it: "HOST_UNKNOWN".
std::string_view ReasonOf(NetError error);

// Whom a stream speaks TLS with.
struct TlsPeer {
  std::string version;  // "TLSv1.3"
  std::string subject;  // of the certificate, printable
};

// Deadlines are relative to the call. Every failure is final: the stream is then closed. Cancelling the coroutine
// (asio cancellation) closes it too. Used by one coroutine at a time, not always the same: one task may dial and
// another one read.
class Stream {
 public:
  virtual ~Stream() = default;
  // At least one byte into buffer[0..size); 0 bytes is returned after Wake() only: end of stream is kClosed. A TLS
  // stream that ends without close_notify is kClosed as well and says so.
  virtual asio::awaitable<absl::StatusOr<size_t>> ReadSome(char* buffer, size_t size, absl::Duration timeout) = 0;
  // So many bytes at least are on their way without anything more being sent, so the next ReadSome may wait a moment
  // for more than one of them: each time that a stream wakes up costs as much as reading kilobytes. A hint.
  virtual void Expect(uint64_t) {}
  // All of `bytes`, which must stay alive until it returns. After kClosed the server's last words can still be read,
  // which mostly say why.
  virtual asio::awaitable<absl::Status> Write(std::string_view bytes, absl::Duration timeout) = 0;
  // Upgrades to TLS in place (after STARTTLS, or first of all with implicit TLS).
  virtual asio::awaitable<absl::Status> StartTls(const TlsOptions& options, absl::Duration timeout) = 0;
  virtual bool is_tls() const = 0;
  // Nothing without TLS.
  virtual std::optional<TlsPeer> tls_peer() const { return std::nullopt; }
  // The very address that this stream is connected to, "192.0.2.1:993"; empty where there is none.
  virtual std::string remote_address() const { return ""; }
  // Ends the pending ReadSome, or the next one, with 0 bytes: its coroutine has something to write meanwhile. Nothing
  // is lost. Thread-safe while the stream lives.
  virtual void Wake() = 0;
  // Ends the connection at once; pending operations fail with kClosed. Idempotent.
  virtual void Close() = 0;
};

}  // namespace poststelle::net
