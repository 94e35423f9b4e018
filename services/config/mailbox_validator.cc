#include "services/config/mailbox_validator.h"

#include <glib.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include <algorithm>
#include <memory>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "libs/base/text.h"
#include "services/config/provider_table.h"

namespace poststelle::config {
namespace {

constexpr size_t kMaxPem = 64 << 10;
constexpr int kMaxLabels = 64;
constexpr absl::Duration kMaxInterval = absl::Hours(24 * 7);

using GString = std::unique_ptr<char, decltype(&g_free)>;

size_t Characters(const std::string& text) {
  return static_cast<size_t>(g_utf8_strlen(text.data(), static_cast<gssize>(text.size())));
}

bool IsLabelKey(const std::string& key) {
  return !key.empty() && key.size() <= 63 && key[0] >= 'a' && key[0] <= 'z' &&
         key.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789._/-") == std::string::npos;
}

bool IsFolder(const std::string& folder) { return !folder.empty() && folder.size() <= 255 && !HasControl(folder); }

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
  Validator(v1::Mailbox& mailbox, absl::Duration min_interval, Passwords passwords)
      : mailbox_(mailbox),
        min_interval_(min_interval),
        passwords_(passwords),
        inbound_(mailbox.direction() == v1::Mailbox::DIRECTION_INBOUND),
        outbound_(mailbox.direction() == v1::Mailbox::DIRECTION_OUTBOUND) {}

  std::vector<rpc::Violation> Run() {
    Names();
    Connection();
    Authentication();
    Labels();
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
    if (!inbound_ && !outbound_) {
      Wrong("direction", "must be DIRECTION_INBOUND or DIRECTION_OUTBOUND");
    }
    if (!IsAddress(mailbox_.address())) {
      Wrong("address", "must be a mail address like support@example.org, at most 254 bytes");
    }
  }

  void Connection() {
    v1::Connection& connection = *mailbox_.mutable_connection();
    const bool smtp = connection.protocol() == v1::Connection::PROTOCOL_SMTP;
    const bool imap = connection.protocol() == v1::Connection::PROTOCOL_IMAP;
    if (outbound_ && !smtp) {
      Wrong("connection.protocol", "must be PROTOCOL_SMTP for an outbound mailbox");
    } else if (!outbound_ && (inbound_ || !smtp) && !imap) {
      Wrong("connection.protocol", "must be PROTOCOL_IMAP for an inbound mailbox");
    }
    const std::string& host = connection.host();
    const bool good_host = !host.empty() && host.size() <= 253 && !HasControl(host) &&
                           host.find_first_of(" /@\\\"<>") == std::string::npos;
    if (!good_host) Wrong("connection.host", "must be a host name or IP address of 1 to 253 characters");
    if (!v1::Connection::Encryption_IsValid(connection.encryption())) {
      Wrong("connection.encryption", "must be one of NONE, STARTTLS, TLS");
    } else if (connection.encryption() == v1::Connection::ENCRYPTION_UNSPECIFIED) {
      connection.set_encryption(v1::Connection::ENCRYPTION_TLS);
    }
    if (connection.port() == 0) connection.set_port(UsualPort(connection));
    if (connection.port() < 1 || connection.port() > 65535)
      Wrong("connection.port", "must be 1 to 65535, or 0 for the usual one");
    const std::string& pem = connection.ca_certificates_pem();
    if (pem.size() > kMaxPem || (!pem.empty() && !IsPem(pem))) {
      Wrong("connection.ca_certificates_pem", "must be certificates in PEM form, at most 64 KiB");
    }
    Pin(connection);
  }

  void Pin(v1::Connection& connection) {
    std::string& pin = *connection.mutable_pinned_key_sha256();
    absl::AsciiStrToLower(&pin);
    if (pin.empty()) return;
    if (pin.size() != 64 || pin.find_first_not_of("0123456789abcdef") != std::string::npos) {
      Wrong("connection.pinned_key_sha256", "must be a SHA-256 in 64 hexadecimal digits");
    } else if (!connection.ca_certificates_pem().empty()) {
      Wrong("connection.pinned_key_sha256", "excludes ca_certificates_pem; give one of them");
    } else if (connection.encryption() == v1::Connection::ENCRYPTION_NONE) {
      Wrong("connection.pinned_key_sha256", "needs encryption: without it there is no certificate");
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
    const bool missing = password.empty() && !auth.password_set();
    if (missing && (passwords_ == Passwords::kRequired || mailbox_.enabled())) {
      Wrong("password_authentication.password", "must be given");
    }
    if (password.size() > 1024 || password.find_first_of(std::string("\r\n\0", 3)) != std::string::npos) {
      Wrong("password_authentication.password", "must have at most 1024 bytes and no line break or NUL");
    }
  }

  void Labels() {
    if (mailbox_.labels_size() > kMaxLabels) Wrong("labels", absl::StrCat("must be at most ", kMaxLabels));
    for (const auto& [key, value] : mailbox_.labels()) {
      if (!IsLabelKey(key)) {
        Wrong("labels", absl::StrCat("has the key \"", Shown(key),
                                     "\": a key must have 1 to 63 characters of a-z, 0-9 and ._/- and begin with a "
                                     "letter"));
      }
      if (Characters(value) > 63 || HasControl(value)) {
        Wrong("labels",
              absl::StrCat("has a bad value under \"", Shown(key), "\": at most 63 characters, no control characters"));
      }
    }
    Name("counterpart", mailbox_.counterpart(), "mailboxes");
    if (!mailbox_.counterpart().empty() && mailbox_.counterpart() == mailbox_.name()) {
      Wrong("counterpart", "must be another mailbox");
    }
  }

  // A field that names a resource of `collection`; empty is fine.
  void Name(const std::string& field, const std::string& name, const std::string& collection) {
    if (name.empty()) return;
    const bool prefixed = absl::StartsWith(name, collection + "/");
    const std::string id = prefixed ? name.substr(collection.size() + 1) : "";
    const bool good = collection == "mailboxes" ? IsMailboxId(id) : IsEntryId(id);
    if (!good) Wrong(field, absl::StrCat("must be a resource name like ", collection, "/example"));
  }

  // Of a mailbox whose direction is a mistake, too: it hides no other one.
  void Import() {
    if (outbound_) {
      if (mailbox_.has_import_options()) Wrong("import_options", "must not be given: the mailbox is outbound");
      return;
    }
    v1::ImportOptions& options = *mailbox_.mutable_import_options();
    Age(options);
    Folders(options);
    AfterImport(options);
    Name("import_options.reply_via", options.reply_via(), "mailboxes");
    Name("import_options.new_ticket_status", options.new_ticket_status(), "ticketStatuses");
    Name("import_options.reply_ticket_status", options.reply_ticket_status(), "ticketStatuses");
    std::set<std::string> labels;
    for (const std::string& label : options.ticket_labels()) {
      if (label.empty()) Wrong("import_options.ticket_labels", "must not hold an empty name");
      Name("import_options.ticket_labels", label, "labels");
      if (!labels.insert(label).second) Wrong("import_options.ticket_labels", "must not name a label twice");
    }
    if (options.ticket_labels_size() > 20) Wrong("import_options.ticket_labels", "must be at most 20");
  }

  void Age(v1::ImportOptions& options) {
    if (options.age_limit_case() == v1::ImportOptions::AGE_LIMIT_NOT_SET) options.set_max_age_days(30);
    if (options.has_max_age_days() && (options.max_age_days() < 1 || options.max_age_days() > 3650)) {
      Wrong("import_options.max_age_days", "must be 1 to 3650; for no limit give unlimited_age");
    }
    if (options.has_unlimited_age() && !options.unlimited_age()) {
      Wrong("import_options.unlimited_age", "must be true where it is given; for a limit give max_age_days");
    }
    if (!options.has_fetch_interval()) options.mutable_fetch_interval()->set_seconds(300);
    const int64_t seconds = options.fetch_interval().seconds();
    const bool sane = seconds >= 0 && seconds <= absl::ToInt64Seconds(kMaxInterval) &&
                      options.fetch_interval().nanos() >= 0 && options.fetch_interval().nanos() < 1'000'000'000;
    const absl::Duration interval = absl::Seconds(seconds) + absl::Nanoseconds(options.fetch_interval().nanos());
    if (!sane || interval < min_interval_ || interval > kMaxInterval) {
      Wrong("import_options.fetch_interval", absl::StrCat("must be ", absl::FormatDuration(min_interval_), " to 168h"));
    }
  }

  void Folders(v1::ImportOptions& options) {
    if (options.folders().empty()) options.add_folders("INBOX");
    if (options.folders_size() > 20) Wrong("import_options.folders", "must be at most 20");
    std::set<std::string> seen;
    for (std::string& folder : *options.mutable_folders()) {
      if (absl::EqualsIgnoreCase(folder, "INBOX")) folder = "INBOX";
      if (!IsFolder(folder)) {
        Wrong("import_options.folders", "each must have 1 to 255 bytes and no control characters");
      } else if (!seen.insert(folder).second) {
        Wrong("import_options.folders", absl::StrCat("names ", Shown(folder), " twice"));
      }
    }
  }

  void AfterImport(v1::ImportOptions& options) {
    if (!options.has_after_import()) return;
    v1::AfterImport& after = *options.mutable_after_import();
    const std::string& target = after.target_folder();
    if (!v1::AfterImport::Action_IsValid(after.action())) {
      Wrong("import_options.after_import.action", "must be one of LEAVE, MARK_SEEN, MOVE, DELETE");
      if (!target.empty() && !IsFolder(target)) {
        Wrong("import_options.after_import.target_folder", "must have 1 to 255 bytes and no control characters");
      }
    } else if (after.action() != v1::AfterImport::ACTION_MOVE) {
      if (!target.empty()) {
        Wrong("import_options.after_import.target_folder", "must not be given unless the action is ACTION_MOVE");
      }
    } else if (!IsFolder(target)) {
      Wrong("import_options.after_import.target_folder", "must have 1 to 255 bytes and no control characters");
    } else {
      for (const std::string& folder : options.folders()) {
        const bool same = folder == target || (folder == "INBOX" && absl::EqualsIgnoreCase(target, folder));
        if (!same) continue;
        Wrong("import_options.after_import.target_folder",
              "must not be one of the folders that are fetched: what is moved there would come again");
      }
    }
  }

  v1::Mailbox& mailbox_;
  const absl::Duration min_interval_;
  const Passwords passwords_;
  const bool inbound_;
  const bool outbound_;
  std::vector<rpc::Violation> violations_;
};

}  // namespace

std::vector<rpc::Violation> CompleteAndValidate(v1::Mailbox& mailbox, absl::Duration min_interval,
                                                Passwords passwords) {
  Validator validator(mailbox, min_interval, passwords);
  return validator.Run();
}

bool IsAddress(const std::string& address) {
  const size_t at = address.rfind('@');
  return at != std::string::npos && at > 0 && at + 1 < address.size() && address.size() <= 254 &&
         address.find_first_of(" <>,\"") == std::string::npos && !HasControl(address);
}

void CheckRequestId(const std::string& request_id, std::vector<rpc::Violation>& violations) {
  if (Characters(request_id) > 128 || HasControl(request_id)) {
    violations.push_back({"request_id", "must have at most 128 characters and no control characters"});
  }
}

bool SendsPasswordElsewhere(const v1::Mailbox& before, const v1::Mailbox& after, Elsewhere counts) {
  const v1::Connection& old = before.connection();
  const v1::Connection& now = after.connection();
  const bool same_place =
      absl::EqualsIgnoreCase(old.host(), now.host()) ||
      (counts == Elsewhere::kAnotherProvider && ProviderTable::Get().SameProvider(old.host(), now.host()));
  // The values of Encryption rise with the protection.
  return !same_place || now.encryption() < old.encryption() || old.ca_certificates_pem() != now.ca_certificates_pem() ||
         old.pinned_key_sha256() != now.pinned_key_sha256();
}

std::string NameKey(const std::string& display_name) {
  const GString folded(g_utf8_casefold(display_name.data(), static_cast<gssize>(display_name.size())), g_free);
  const GString normal(g_utf8_normalize(folded.get(), -1, G_NORMALIZE_NFC), g_free);
  return normal == nullptr ? display_name : normal.get();
}

int32_t UsualPort(const v1::Connection& connection) {
  const bool tls = connection.encryption() == v1::Connection::ENCRYPTION_TLS ||
                   connection.encryption() == v1::Connection::ENCRYPTION_UNSPECIFIED;
  if (connection.protocol() == v1::Connection::PROTOCOL_SMTP) return tls ? 465 : 587;
  return tls ? 993 : 143;
}

bool IsEntryId(const std::string& id) {
  return id.size() >= 2 && id.size() <= 63 && id[0] >= 'a' && id[0] <= 'z' &&
         id.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
}

bool IsMailboxId(const std::string& id) {
  return id.size() >= 4 && id.size() <= 63 && id[0] >= 'a' && id[0] <= 'z' &&
         id.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
}

}  // namespace poststelle::config
