// Trust stores and TLS sessions, shared by the streams of one dialer.
#pragma once

#include <openssl/ssl.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "libs/net/stream.h"

namespace poststelle::net {

struct SslDeleter {
  void operator()(SSL* ssl) const { SSL_free(ssl); }
};
using SslPtr = std::unique_ptr<SSL, SslDeleter>;

// One SSL_CTX a trust store (loading the system's for every connection costs more than the handshake), and the last
// session of every server, so that the next poll resumes it. Thread-safe.
class TlsContexts {
 public:
  TlsContexts();
  ~TlsContexts();
  // A client for `options` on `fd`: SNI, name check, TLS 1.2 or newer, a session to resume if there is one for `peer`.
  absl::StatusOr<SslPtr> NewClient(const TlsOptions& options, const std::string& peer, int fd);

  struct Store;

 private:
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Store>> stores_;  // by hash of the PEM; at most kMaxStores
};

// What a failed handshake means, in a sentence for a person.
absl::Status ExplainHandshake(SSL* ssl, const std::string& server_name);

}  // namespace poststelle::net
