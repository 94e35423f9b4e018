#include "services/config/warnings.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace poststelle::config {
namespace {

v1::Warning Make(const std::string& field, const std::string& reason, const std::string& de, const std::string& en) {
  v1::Warning warning;
  warning.set_field(field);
  warning.set_reason(reason);
  warning.mutable_text()->set_de(de);
  warning.mutable_text()->set_en(en);
  return warning;
}

bool IsLoopback(const std::string& host) {
  const bool is_number = host.find_first_not_of("0123456789.") == std::string::npos;
  return absl::EqualsIgnoreCase(host, "localhost") || absl::EndsWithIgnoreCase(host, ".localhost") ||
         (is_number && absl::StartsWith(host, "127.")) || host == "::1";
}

v1::Warning PasswordEnded(const ProviderEntry& entry) {
  return Make("password_authentication", "PASSWORD_SIGN_IN_ENDED",
              absl::StrCat(entry.display_name(), " lässt Programme nicht mit Passwort anmelden."),
              absl::StrCat(entry.display_name(), " does not let programs sign in with a password."));
}

// "10 minutes", in both languages; the table holds whole seconds.
v1::LocalizedText Spoken(absl::Duration interval) {
  const int64_t seconds = absl::ToInt64Seconds(interval);
  const bool minutes = seconds % 60 == 0;
  v1::LocalizedText text;
  text.set_de(minutes ? absl::StrCat(seconds / 60, seconds == 60 ? " Minute" : " Minuten")
                      : absl::StrCat(seconds, " Sekunden"));
  text.set_en(minutes ? absl::StrCat(seconds / 60, seconds == 60 ? " minute" : " minutes")
                      : absl::StrCat(seconds, " seconds"));
  return text;
}

absl::Duration Interval(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

}  // namespace

void AddWarnings(v1::Mailbox& mailbox) {
  mailbox.clear_warnings();
  const v1::Connection& connection = mailbox.connection();
  if (connection.encryption() == v1::Connection::ENCRYPTION_NONE && !IsLoopback(connection.host())) {
    *mailbox.add_warnings() =
        Make("connection.encryption", "CLEAR_TEXT",
             "Die Verbindung ist unverschlüsselt: Jeder auf dem Weg liest Passwort und Mails mit.",
             "The connection is not encrypted: everybody on the way can read the password and the mail.");
  }
  const ProviderEntry* provider = ProviderTable::Get().ByServer(connection.host(), mailbox.address());
  if (provider == nullptr) return;
  const bool inbound = mailbox.direction() == v1::Mailbox::DIRECTION_INBOUND;
  const auto sign_in = SignInOf(*provider, inbound ? Direction::kInbound : Direction::kOutbound);
  if (mailbox.has_password_authentication() && sign_in == ProviderEntry::NO_PASSWORD) {
    *mailbox.add_warnings() = PasswordEnded(*provider);
  }
  const absl::Duration least = MinFetchInterval(*provider);
  if (inbound && Interval(mailbox.import_options().fetch_interval()) < least) {
    const v1::LocalizedText spoken = Spoken(least);
    *mailbox.add_warnings() = Make("import_options.fetch_interval", "INTERVAL_BELOW_PROVIDER_MINIMUM",
                                   absl::StrCat(provider->display_name(), " bittet um mindestens ", spoken.de(),
                                                " zwischen zwei Abrufen und kann sonst den Zugang sperren."),
                                   absl::StrCat(provider->display_name(), " asks for at least ", spoken.en(),
                                                " between two polls and may lock the account otherwise."));
  }
}

std::optional<v1::Warning> SignInWarning(const ProviderEntry& entry, Direction direction) {
  switch (SignInOf(entry, direction)) {
    case ProviderEntry::NO_PASSWORD:
      return PasswordEnded(entry);
    case ProviderEntry::APP_PASSWORD:
      return Make("password_authentication.password", "APP_PASSWORD_NEEDED",
                  absl::StrCat(entry.display_name(),
                               " nimmt nicht das Passwort des Kontos, sondern nur eines, das für ein Programm angelegt "
                               "wurde."),
                  absl::StrCat(entry.display_name(),
                               " does not take the account's password, only one that was made for a program."));
    default:
      return std::nullopt;
  }
}

v1::Warning LookupFailedWarning() {
  return Make("", "LOOKUP_FAILED",
              "Die DNS-Einträge der Domain konnten nicht abgefragt werden; die Server sind nur geraten.",
              "The domain's DNS records could not be looked up; the servers are only guessed.");
}

}  // namespace poststelle::config
