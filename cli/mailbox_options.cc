#include "cli/mailbox_options.h"

#include <cstdlib>
#include <functional>
#include <iostream>

#include "absl/strings/ascii.h"
#include "absl/time/time.h"
#include "cli/files.h"

namespace poststelle::cli {
namespace {

using config::v1::Connection;
using config::v1::Mailbox;
using Set = std::function<void(bool given, const char* path, std::function<void()> assign)>;

// "vip" and "labels/vip" mean the same.
std::string Named(const std::string& collection, const std::string& name) {
  return name.find('/') == std::string::npos ? collection + "/" + name : name;
}

void FillReferences(const MailboxOptions& o, Mailbox& m, const Set& set) {
  set(!o.reply_via.empty() || o.no_reply_via, "import_options.reply_via",
      [&] { m.mutable_import_options()->set_reply_via(o.no_reply_via ? "" : Named("mailboxes", o.reply_via)); });
  set(!o.new_status.empty() || o.no_new_status, "import_options.new_ticket_status", [&] {
    m.mutable_import_options()->set_new_ticket_status(o.no_new_status ? "" : Named("ticketStatuses", o.new_status));
  });
  set(!o.reply_status.empty() || o.no_reply_status, "import_options.reply_ticket_status", [&] {
    m.mutable_import_options()->set_reply_ticket_status(o.no_reply_status ? ""
                                                                          : Named("ticketStatuses", o.reply_status));
  });
  set(!o.ticket_labels.empty() || o.no_ticket_labels, "import_options.ticket_labels", [&] {
    for (const std::string& label : o.ticket_labels) {
      m.mutable_import_options()->add_ticket_labels(Named("labels", label));
    }
  });
}

}  // namespace

void AddOptions(CLI::App* command, MailboxOptions& o) {
  command->add_option("--name", o.display_name, "Name for people");
  command->add_option("--address", o.address, "Address of the mailbox");
  command->add_option("--host", o.host, "Mail server");
  command->add_option("--port", o.port, "Port (default by encryption)");
  command->add_option("--encryption", o.encryption, "tls, starttls or none")
      ->check(CLI::IsMember({"tls", "starttls", "none"}));
  command->add_option("--ca-file", o.ca_file, "PEM file of the authority to trust")->check(CLI::ExistingFile);
  command->add_option("--login", o.login, "Login name (default: the address)");
  command->add_option("--password-file", o.password_file, "File that holds the password")->check(CLI::ExistingFile);
  command->add_flag("--password-stdin", o.password_stdin, "Read the password from standard input");
  command->add_option("--pin", o.pin, "SHA-256 of the one key to trust, instead of authorities");
  command->add_option("--folder", o.folders, "Folder to fetch from (default INBOX); may be repeated");
  // Of two that contradict each other neither wins silently.
  CLI::Option* max_age = command->add_option("--max-age-days", o.max_age_days, "Oldest mail to import, in days");
  command->add_flag("--unlimited-age", o.unlimited_age, "Import mail of any age")->excludes(max_age);
  command->add_option("--interval", o.interval, "Time between polls, like 5m");
  CLI::Option* also_read = command->add_flag("--also-read", o.also_read, "Import mail that is read already, too");
  command->add_flag("--unread-only", o.unread_only, "Import unread mail only")->excludes(also_read);
  CLI::Option* disabled = command->add_flag("--disabled", o.disabled, "Do not poll");
  command->add_flag("--enabled", o.enabled, "Poll")->excludes(disabled);
  CLI::Option* reply_via = command->add_option("--reply-via", o.reply_via, "Outbound mailbox that answers");
  command->add_flag("--no-reply-via", o.no_reply_via, "None")->excludes(reply_via);
  CLI::Option* fresh = command->add_option("--new-status", o.new_status, "Status of new tickets");
  command->add_flag("--no-new-status", o.no_new_status, "None")->excludes(fresh);
  CLI::Option* reply = command->add_option("--reply-status", o.reply_status, "Status that a reply gives its ticket");
  command->add_flag("--no-reply-status", o.no_reply_status, "Replies leave the status alone")->excludes(reply);
  CLI::Option* ticket_labels =
      command->add_option("--ticket-label", o.ticket_labels, "Label of new tickets; may be repeated");
  command->add_flag("--no-ticket-labels", o.no_ticket_labels, "None")->excludes(ticket_labels);
  command->add_option("--after-import", o.after_import, "leave, mark_seen, move or delete")
      ->check(CLI::IsMember({"leave", "mark_seen", "move", "delete"}));
  command->add_option("--target-folder", o.target_folder, "Where --after-import move moves to");
  CLI::Option* labels = command->add_option("--label", o.labels, "Label of the mailbox itself, KEY=VALUE; all of them");
  command->add_flag("--no-labels", o.no_labels, "None")->excludes(labels);
}

bool Fill(const MailboxOptions& o, Mailbox& m, std::vector<std::string>& paths) {
  const Set set = [&paths](bool given, const char* path, const std::function<void()>& assign) {
    if (!given) return;
    assign();
    paths.emplace_back(path);
  };
  set(!o.display_name.empty(), "display_name", [&] { m.set_display_name(o.display_name); });
  set(!o.address.empty(), "address", [&] { m.set_address(o.address); });
  set(!o.host.empty(), "connection.host", [&] { m.mutable_connection()->set_host(o.host); });
  set(o.port != 0, "connection.port", [&] { m.mutable_connection()->set_port(o.port); });
  set(!o.encryption.empty(), "connection.encryption", [&] {
    m.mutable_connection()->set_encryption(o.encryption == "tls"        ? Connection::ENCRYPTION_TLS
                                           : o.encryption == "starttls" ? Connection::ENCRYPTION_STARTTLS
                                                                        : Connection::ENCRYPTION_NONE);
  });
  set(!o.ca_file.empty(), "connection.ca_certificates_pem",
      [&] { m.mutable_connection()->set_ca_certificates_pem(ReadInput(o.ca_file).value_or("")); });
  set(!o.login.empty(), "password_authentication.login_name",
      [&] { m.mutable_password_authentication()->set_login_name(o.login); });
  std::string password;
  if (!o.password_file.empty()) password = FirstLine(ReadInput(o.password_file).value_or(""));
  if (o.password_stdin) std::getline(std::cin, password);
  const char* environment = std::getenv("POSTSTELLE_MAILBOX_PASSWORD");
  if (password.empty() && environment != nullptr) password = environment;
  set(!password.empty(), "password_authentication.password",
      [&] { m.mutable_password_authentication()->set_password(password); });
  set(!o.pin.empty(), "connection.pinned_key_sha256", [&] { m.mutable_connection()->set_pinned_key_sha256(o.pin); });
  set(!o.folders.empty(), "import_options.folders",
      [&] { m.mutable_import_options()->mutable_folders()->Assign(o.folders.begin(), o.folders.end()); });
  set(o.max_age_days != 0, "import_options.max_age_days",
      [&] { m.mutable_import_options()->set_max_age_days(o.max_age_days); });
  set(o.unlimited_age, "import_options.unlimited_age", [&] { m.mutable_import_options()->set_unlimited_age(true); });
  absl::Duration interval;
  if (!o.interval.empty() && !absl::ParseDuration(o.interval, &interval)) {
    std::cerr << "error: --interval: \"" << o.interval << "\" is no duration; give it like 30s or 5m\n";
    return false;
  }
  set(!o.interval.empty(), "import_options.fetch_interval", [&] {
    auto* d = m.mutable_import_options()->mutable_fetch_interval();
    d->set_seconds(absl::ToInt64Seconds(interval));
    d->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(interval % absl::Seconds(1))));
  });
  set(o.also_read || o.unread_only, "import_options.also_fetch_read",
      [&] { m.mutable_import_options()->set_also_fetch_read(o.also_read); });
  set(o.disabled || o.enabled, "enabled", [&] { m.set_enabled(o.enabled); });
  FillReferences(o, m, set);
  config::v1::AfterImport::Action action = config::v1::AfterImport::ACTION_UNSPECIFIED;
  config::v1::AfterImport::Action_Parse("ACTION_" + absl::AsciiStrToUpper(o.after_import), &action);
  set(!o.after_import.empty(), "import_options.after_import", [&] {
    m.mutable_import_options()->mutable_after_import()->set_action(action);
    m.mutable_import_options()->mutable_after_import()->set_target_folder(o.target_folder);
  });
  for (const std::string& label : o.labels) {
    const size_t equals = label.find('=');
    if (equals == std::string::npos) {
      std::cerr << "error: --label: \"" << label << "\" is not KEY=VALUE\n";
      return false;
    }
    (*m.mutable_labels())[label.substr(0, equals)] = label.substr(equals + 1);
  }
  set(!o.labels.empty() || o.no_labels, "labels", [] {});
  return true;
}

}  // namespace poststelle::cli
