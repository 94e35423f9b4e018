#include "libs/net/tls_context.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <asio/ip/address.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "libs/base/ids.h"
#include "libs/net/certificate.h"

namespace poststelle::net {
namespace {

constexpr size_t kMaxStores = 256;
constexpr size_t kMaxSessions = 10'000;
// Servers send records of 4 or 16 KB, and OpenSSL reads each in two pieces unless it may read ahead. The buffer goes
// back when it is empty (SSL_MODE_RELEASE_BUFFERS), so that idle connections do not pay for it.
constexpr size_t kReadAhead = 64 << 10;

// The last error of OpenSSL in words; clears the queue.
std::string LastError() {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  const char* text = code == 0 ? nullptr : ERR_reason_error_string(code);
  return text == nullptr ? "the connection was closed during the handshake" : text;
}

bool LoadPem(X509_STORE* store, const std::string& pem) {
  std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), BIO_free);
  int loaded = 0;
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) {
    if (X509_STORE_add_cert(store, certificate) == 1) ++loaded;
    X509_free(certificate);
  }
  ERR_clear_error();
  return loaded > 0;
}

std::string DateOf(int64_t time) {
  return time == 0 ? "an unknown date" : absl::FormatTime("%Y-%m-%d", absl::FromUnixSeconds(time), absl::UTCTimeZone());
}

}  // namespace

struct TlsContexts::Store {
  SSL_CTX* context = nullptr;
  std::string pinned_key_sha256;  // empty: authorities are trusted
  std::mutex mutex;
  std::map<std::string, SSL_SESSION*> sessions;  // by peer

  ~Store() {
    for (auto& [peer, session] : sessions) SSL_SESSION_free(session);
    SSL_CTX_free(context);
  }
};

namespace {

// What belongs to one SSL object; keeps its store alive, which may have left the list of stores meanwhile.
struct Peer {
  std::string name;
  std::shared_ptr<TlsContexts::Store> store;
  std::optional<Certificate> certificate;  // once the server has shown one
};

// Instead of X509_verify_cert alone: keeps what the server showed, which OpenSSL forgets where it is refused, and
// knows pins.
int Verify(X509_STORE_CTX* verifying, void*) {
  auto* ssl = static_cast<SSL*>(X509_STORE_CTX_get_ex_data(verifying, SSL_get_ex_data_X509_STORE_CTX_idx()));
  auto* owner = static_cast<Peer*>(SSL_get_app_data(ssl));
  X509* shown = X509_STORE_CTX_get0_cert(verifying);
  owner->certificate = Describe(shown);
  const std::string& pin = owner->store->pinned_key_sha256;
  if (pin.empty()) return X509_verify_cert(verifying);
  const bool same = owner->certificate->key_sha256 == pin;
  X509_STORE_CTX_set_error(verifying, same ? X509_V_OK : X509_V_ERR_APPLICATION_VERIFICATION);
  return same ? 1 : 0;
}

// Called by OpenSSL when the server hands out a session; returning 1 keeps the reference.
int KeepSession(SSL* ssl, SSL_SESSION* session) {
  const auto* owner = static_cast<const Peer*>(SSL_get_app_data(ssl));
  if (owner == nullptr) return 0;
  const std::shared_ptr<TlsContexts::Store>& store = owner->store;
  const std::string* peer = &owner->name;
  std::lock_guard lock(store->mutex);
  if (store->sessions.size() >= kMaxSessions && !store->sessions.contains(*peer)) return 0;
  SSL_SESSION*& slot = store->sessions[*peer];
  if (slot != nullptr) SSL_SESSION_free(slot);
  slot = session;
  return 1;
}

// Freed with the SSL object it belongs to.
void FreePeer(void*, void* pointer, CRYPTO_EX_DATA*, int, long, void*) { delete static_cast<Peer*>(pointer); }

int PeerIndex() {
  static const int index = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, FreePeer);
  return index;
}

absl::StatusOr<std::shared_ptr<TlsContexts::Store>> MakeStore(const std::string& pem, const std::string& pin) {
  auto store = std::make_shared<TlsContexts::Store>();
  store->context = SSL_CTX_new(TLS_client_method());
  SSL_CTX* context = store->context;
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  store->pinned_key_sha256 = pin;
  SSL_CTX_set_cert_verify_callback(context, Verify, nullptr);
  SSL_CTX_set_mode(context,
                   SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_read_ahead(context, 1);
  SSL_CTX_set_default_read_buffer_len(context, kReadAhead);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(context, KeepSession);
  const bool loaded =
      pem.empty() ? SSL_CTX_set_default_verify_paths(context) == 1 : LoadPem(SSL_CTX_get_cert_store(context), pem);
  if (!loaded) return MakeNetError(NetError::kTls, "the trusted certificates could not be read");
  return store;
}

}  // namespace

TlsContexts::TlsContexts() = default;
TlsContexts::~TlsContexts() = default;

absl::StatusOr<SslPtr> TlsContexts::NewClient(const TlsOptions& options, const std::string& peer, int fd) {
  std::shared_ptr<Store> store;
  {
    std::lock_guard lock(mutex_);
    const std::string key = Sha256(options.ca_certificates_pem) + options.pinned_key_sha256;
    auto it = stores_.find(key);
    if (it == stores_.end()) {
      auto made = MakeStore(options.ca_certificates_pem, options.pinned_key_sha256);
      if (!made.ok()) return made.status();
      if (stores_.size() >= kMaxStores) stores_.clear();  // streams keep theirs (Peer)
      it = stores_.emplace(key, *made).first;
    }
    store = it->second;
  }
  SslPtr ssl(SSL_new(store->context));
  if (ssl == nullptr || SSL_set_fd(ssl.get(), fd) != 1) return MakeNetError(NetError::kTls, LastError());
  SSL_set_connect_state(ssl.get());
  asio::error_code not_literal;
  asio::ip::make_address(options.server_name, not_literal);
  X509_VERIFY_PARAM* verify = SSL_get0_param(ssl.get());
  bool checked = !options.server_name.empty();  // an empty name would mean "any" to OpenSSL
  if (not_literal) {
    SSL_set_tlsext_host_name(ssl.get(), options.server_name.c_str());
    X509_VERIFY_PARAM_set_hostflags(verify, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    checked =
        checked && X509_VERIFY_PARAM_set1_host(verify, options.server_name.c_str(), options.server_name.size()) == 1;
  } else {
    checked = checked && X509_VERIFY_PARAM_set1_ip_asc(verify, options.server_name.c_str()) == 1;
  }
  if (!checked) return MakeNetError(NetError::kTls, "there is no server name to check the certificate against");
  auto* owner = new Peer{peer + "/" + options.server_name, store, std::nullopt};
  SSL_set_ex_data(ssl.get(), PeerIndex(), owner);  // owns it
  SSL_set_app_data(ssl.get(), owner);
  std::lock_guard lock(store->mutex);
  if (auto it = store->sessions.find(owner->name); it != store->sessions.end()) SSL_set_session(ssl.get(), it->second);
  return ssl;
}

absl::Status ExplainHandshake(SSL* ssl, const std::string& server_name) {
  const long verdict = SSL_get_verify_result(ssl);
  const auto* owner = static_cast<const Peer*>(SSL_get_app_data(ssl));
  if (verdict == X509_V_OK || owner == nullptr || !owner->certificate) {
    return MakeNetError(NetError::kTls, absl::StrCat("the TLS handshake failed: ", LastError(), "."));
  }
  ERR_clear_error();
  const Certificate& certificate = *owner->certificate;
  const auto wrong = [&](NetError error, const std::string& sentence) {
    return WithCertificate(MakeNetError(error, absl::StrCat("the certificate of ", server_name, " ", sentence, ".")),
                           certificate);
  };
  switch (verdict) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return wrong(NetError::kCertificateExpired, "expired on " + DateOf(certificate.not_after));
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return wrong(NetError::kCertificateExpired, "is not valid before " + DateOf(certificate.not_before));
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
      return WithCertificate(MakeNetError(NetError::kCertificateName,
                                          absl::StrCat("the certificate is not made out to ", server_name, ".")),
                             certificate);
    case X509_V_ERR_APPLICATION_VERIFICATION:
      return wrong(NetError::kCertificateKey, "has another key than the one that is pinned");
    default:
      return wrong(NetError::kCertificateIssuer,
                   absl::StrCat("is not trusted: ", X509_verify_cert_error_string(verdict)));
  }
}

}  // namespace poststelle::net
