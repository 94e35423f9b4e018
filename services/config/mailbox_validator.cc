#include "services/config/mailbox_validator.h"

#include <glib.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include <algorithm>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace poststelle::config {
namespace {

constexpr size_t kMaxPem = 64 << 10;
constexpr absl::Duration kMaxInterval = absl::Hours(24 * 7);

using GString = std::unique_ptr<char, decltype(&g_free)>;

bool HasControl(const std::string& text) {
  return std::any_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; });
}

bool IsPem(const std::string& pem) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())),
                                                      BIO_free);
  X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr);
  const bool good = certificate != nullptr;
  X509_free(certificate);
  ERR_clear_error();
  return good;
}

class Validator {
 public:
  Validator(v1::Mailbox& mailbox, absl::Duration min_interval, bool need_password)
      : mailbox_(mailbox), min_interval_(min_interval), need_password_(need_password) {}

  std::vector<rpc::Violation> Run() {
    Names();
    Connection();
    Authentication();
    Import();
    return std::move(violations_);
  }

 private:
  void Wrong(const std::string& field, const std::string& description) {
    rpc::Violation violation;
    violation.field = "mailbox." + field;
    violation.description = description;
    violations_.push_back(std::move(violation));
  }

  void Names() {
    const std::string& name = mailbox_.display_name();
    const bool valid = g_utf8_validate(name.data(), static_cast<gssize>(name.size()), nullptr) != 0;
    const long length = valid ? g_utf8_strlen(name.data(), static_cast<gssize>(name.size())) : 0;
    if (length < 1 || length > 100 || HasControl(name)) {
      Wrong("display_name", "must have 1 to 100 characters and no control characters");
    }
    if (mailbox_.direction() != v1::Mailbox::DIRECTION_INBOUND) Wrong("direction", "must be DIRECTION_INBOUND");
    const std::string& address = mailbox_.address();
    const size_t at = address.rfind('@');
    const bool shaped = at != std::string::npos && at > 0 && at + 1 < address.size() && address.size() <= 254 &&
                        address.find_first_of(" <>,\"") == std::string::npos && !HasControl(address);
    if (!shaped) Wrong("address", "must be a mail address like support@example.org, at most 254 bytes");
  }

  void Connection() {
    v1::Connection& connection = *mailbox_.mutable_connection();
    if (connection.protocol() != v1::Connection::PROTOCOL_IMAP) Wrong("connection.protocol", "must be PROTOCOL_IMAP");
    const std::string& host = connection.host();
    const bool good_host = !host.empty() && host.size() <= 253 && !HasControl(host) &&
                           host.find_first_of(" /@\\\"<>") == std::string::npos;
    if (!good_host) Wrong("connection.host", "must be a host name or IP address of 1 to 253 characters");
    if (!v1::Connection::Encryption_IsValid(connection.encryption())) {
      Wrong("connection.encryption", "must be one of NONE, STARTTLS, TLS");
    } else if (connection.encryption() == v1::Connection::ENCRYPTION_UNSPECIFIED) {
      connection.set_encryption(v1::Connection::ENCRYPTION_TLS);
    }
    if (connection.port() == 0)
      connection.set_port(connection.encryption() == v1::Connection::ENCRYPTION_TLS ? 993 : 143);
    if (connection.port() < 1 || connection.port() > 65535)
      Wrong("connection.port", "must be 1 to 65535, or 0 for the usual one");
    const std::string& pem = connection.ca_certificates_pem();
    if (pem.size() > kMaxPem || (!pem.empty() && !IsPem(pem))) {
      Wrong("connection.ca_certificates_pem", "must be certificates in PEM form, at most 64 KiB");
    }
  }

  void Authentication() {
    if (!mailbox_.has_password_authentication()) {
      Wrong("password_authentication", "must be given: it says how to sign in");
      return;
    }
    const v1::PasswordAuthentication& auth = mailbox_.password_authentication();
    if (auth.login_name().size() > 254 || HasControl(auth.login_name())) {
      Wrong("password_authentication.login_name", "must have at most 254 bytes and no control characters");
    }
    const std::string& password = auth.password();
    if (need_password_ && password.empty()) Wrong("password_authentication.password", "must be given");
    if (password.size() > 1024 || password.find_first_of(std::string("\r\n\0", 3)) != std::string::npos) {
      Wrong("password_authentication.password", "must have at most 1024 bytes and no line break or NUL");
    }
  }

  void Import() {
    v1::ImportOptions& options = *mailbox_.mutable_import_options();
    if (options.age_limit_case() == v1::ImportOptions::AGE_LIMIT_NOT_SET) options.set_max_age_days(30);
    if (options.has_max_age_days() && (options.max_age_days() < 1 || options.max_age_days() > 3650)) {
      Wrong("import_options.max_age_days", "must be 1 to 3650; for no limit give unlimited_age");
    }
    if (options.has_unlimited_age() && !options.unlimited_age()) {
      Wrong("import_options.unlimited_age", "must be true where it is given; for a limit give max_age_days");
    }
    if (!options.has_fetch_interval()) options.mutable_fetch_interval()->set_seconds(300);
    const absl::Duration interval =
        absl::Seconds(options.fetch_interval().seconds()) + absl::Nanoseconds(options.fetch_interval().nanos());
    if (interval < min_interval_ || interval > kMaxInterval) {
      Wrong("import_options.fetch_interval", absl::StrCat("must be ", absl::FormatDuration(min_interval_), " to 168h"));
    }
    if (options.folders().empty()) options.add_folders("INBOX");
    for (const std::string& folder : options.folders()) {
      if (folder.empty() || folder.size() > 255 || HasControl(folder)) {
        Wrong("import_options.folders", "each must have 1 to 255 bytes and no control characters");
      }
    }
  }

  v1::Mailbox& mailbox_;
  const absl::Duration min_interval_;
  const bool need_password_;
  std::vector<rpc::Violation> violations_;
};

}  // namespace

std::vector<rpc::Violation> CompleteAndValidate(v1::Mailbox& mailbox, absl::Duration min_interval, bool need_password) {
  Validator validator(mailbox, min_interval, need_password);
  return validator.Run();
}

bool SendsPasswordElsewhere(const v1::Mailbox& before, const v1::Mailbox& after) {
  const v1::Connection& old = before.connection();
  const v1::Connection& now = after.connection();
  // The values of Encryption rise with the protection.
  return !absl::EqualsIgnoreCase(old.host(), now.host()) || now.encryption() < old.encryption() ||
         old.ca_certificates_pem() != now.ca_certificates_pem();
}

std::string NameKey(const std::string& display_name) {
  const GString folded(g_utf8_casefold(display_name.data(), static_cast<gssize>(display_name.size())), g_free);
  const GString normal(g_utf8_normalize(folded.get(), -1, G_NORMALIZE_NFC), g_free);
  return normal == nullptr ? display_name : normal.get();
}

bool IsMailboxId(const std::string& id) {
  return id.size() >= 4 && id.size() <= 63 && id[0] >= 'a' && id[0] <= 'z' &&
         id.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
}

}  // namespace poststelle::config
