#include "services/fetcher/imap_options.h"

namespace poststelle::fetcher {

imap::ConnectOptions ImapOptions(const config::v1::Connection& connection) {
  imap::ConnectOptions options;
  switch (connection.encryption()) {
    case config::v1::Connection::ENCRYPTION_NONE:
      options.encryption = imap::Encryption::kNone;
      break;
    case config::v1::Connection::ENCRYPTION_STARTTLS:
      options.encryption = imap::Encryption::kStartTls;
      break;
    default:
      options.encryption = imap::Encryption::kTls;
      break;
  }
  options.tls.server_name = connection.host();
  options.tls.ca_certificates_pem = connection.ca_certificates_pem();
  options.tls.pinned_key_sha256 = connection.pinned_key_sha256();
  return options;
}

}  // namespace poststelle::fetcher
