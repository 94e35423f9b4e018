#include <fstream>
#include <iostream>
#include <sstream>

#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "cli/context.h"
#include "cli/output.h"
#include "libs/rpc/status.h"
#include "poststelle/fetcher/v1/fetch_service.grpc.pb.h"
#include "poststelle/fetcher/v1/message_service.grpc.pb.h"

namespace poststelle::cli {
namespace {

using config::v1::Connection;
using config::v1::Mailbox;
using config::v1::MailboxService;

// The options of create and update; what was not given stays out of the mask.
struct MailboxOptions {
  std::string display_name, address, host, encryption, ca_file, login, password_file, folder, interval, id, etag;
  int port = 0;
  int max_age_days = 0;
  bool unlimited_age = false, also_read = false, unread_only = false, disabled = false, enabled = false,
       password_stdin = false;
};

void AddOptions(CLI::App* command, MailboxOptions& o) {
  command->add_option("--name", o.display_name, "Name for people");
  command->add_option("--address", o.address, "Address of the mailbox");
  command->add_option("--host", o.host, "IMAP server");
  command->add_option("--port", o.port, "Port (default by encryption)");
  command->add_option("--encryption", o.encryption, "tls, starttls or none")
      ->check(CLI::IsMember({"tls", "starttls", "none"}));
  command->add_option("--ca-file", o.ca_file, "PEM file of the authority to trust")->check(CLI::ExistingFile);
  command->add_option("--login", o.login, "Login name (default: the address)");
  command->add_option("--password-file", o.password_file, "File that holds the password")->check(CLI::ExistingFile);
  command->add_flag("--password-stdin", o.password_stdin, "Read the password from standard input");
  command->add_option("--folder", o.folder, "Folder (default INBOX)");
  // Of two that contradict each other neither wins silently.
  CLI::Option* max_age = command->add_option("--max-age-days", o.max_age_days, "Oldest mail to import, in days");
  command->add_flag("--unlimited-age", o.unlimited_age, "Import mail of any age")->excludes(max_age);
  command->add_option("--interval", o.interval, "Time between polls, like 5m");
  CLI::Option* also_read = command->add_flag("--also-read", o.also_read, "Import mail that is read already, too");
  command->add_flag("--unread-only", o.unread_only, "Import unread mail only")->excludes(also_read);
  CLI::Option* disabled = command->add_flag("--disabled", o.disabled, "Do not poll");
  command->add_flag("--enabled", o.enabled, "Poll")->excludes(disabled);
}

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream out;
  out << in.rdbuf();
  return out.str();
}

std::string FirstLine(std::string text) {
  if (const size_t end = text.find_first_of("\r\n"); end != std::string::npos) text.resize(end);
  return text;
}

// Fills a mailbox from the options and returns the paths that were given; empty with a message if one makes no sense.
bool Fill(const MailboxOptions& o, Mailbox& m, std::vector<std::string>& paths) {
  auto set = [&paths](bool given, const char* path, auto assign) {
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
      [&] { m.mutable_connection()->set_ca_certificates_pem(ReadFile(o.ca_file)); });
  set(!o.login.empty(), "password_authentication.login_name",
      [&] { m.mutable_password_authentication()->set_login_name(o.login); });
  std::string password;
  if (!o.password_file.empty()) password = FirstLine(ReadFile(o.password_file));
  if (o.password_stdin) std::getline(std::cin, password);
  const char* environment = std::getenv("POSTSTELLE_MAILBOX_PASSWORD");
  if (password.empty() && environment != nullptr) password = environment;
  set(!password.empty(), "password_authentication.password",
      [&] { m.mutable_password_authentication()->set_password(password); });
  set(!o.folder.empty(), "import_options.folders", [&] { m.mutable_import_options()->add_folders(o.folder); });
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
  return true;
}

void Print(const Context& context, const Mailbox& m) {
  if (context.json()) {
    std::cout << Json(m) << "\n";
    return;
  }
  const auto& import = m.import_options();
  std::cout << Table(
      {{"name", m.name()},
       {"display name", m.display_name()},
       {"address", m.address()},
       {"server", m.connection().host() + ":" + std::to_string(m.connection().port())},
       {"encryption", Short(Connection::Encryption_Name(m.connection().encryption()), "ENCRYPTION_")},
       {"login",
        m.password_authentication().login_name().empty() ? m.address() : m.password_authentication().login_name()},
       {"password", m.password_authentication().password_set() ? "stored" : "none"},
       {"folders", absl::StrJoin(import.folders(), ", ")},
       {"max age", import.unlimited_age() ? "unlimited" : std::to_string(import.max_age_days()) + " days"},
       {"interval", std::to_string(import.fetch_interval().seconds()) + " s"},
       {"read mail", import.also_fetch_read() ? "imported too" : "passed over"},
       {"enabled", m.enabled() ? "yes" : "no"},
       {"etag", m.etag()}});
}

// Report, and how to give a password that the service asks for.
int ReportChange(const grpc::Status& status) {
  const int exit_code = Report(status);
  for (const rpc::Violation& v : rpc::ViolationsOf(status)) {
    if (v.field != "mailbox.password_authentication.password") continue;
    std::cerr << "give it with --password-stdin, --password-file FILE or in POSTSTELLE_MAILBOX_PASSWORD\n";
  }
  return exit_code;
}

int Create(const Context& context, const MailboxOptions& o) {
  config::v1::CreateMailboxRequest request;
  std::vector<std::string> paths;
  Mailbox& m = *request.mutable_mailbox();
  m.set_direction(Mailbox::DIRECTION_INBOUND);
  m.mutable_connection()->set_protocol(Connection::PROTOCOL_IMAP);
  m.mutable_password_authentication();
  if (!Fill(o, m, paths)) return 2;
  m.set_enabled(!o.disabled);
  request.set_mailbox_id(o.id);
  config::v1::CreateMailboxResponse response;
  const grpc::Status status =
      MailboxService::NewStub(context.config())->CreateMailbox(Call().get(), request, &response);
  if (status.ok()) Print(context, response.mailbox());
  return ReportChange(status);
}

int Update(const Context& context, const std::string& what, const MailboxOptions& o) {
  Mailbox present;
  if (const grpc::Status found = FindMailbox(context, what, present); !found.ok()) return Report(found);
  config::v1::UpdateMailboxRequest request;
  std::vector<std::string> paths;
  if (!Fill(o, *request.mutable_mailbox(), paths)) return 2;
  if (paths.empty()) {
    std::cerr << "error: nothing to change was given\n";
    return 2;
  }
  request.mutable_mailbox()->set_name(present.name());
  request.mutable_mailbox()->set_etag(o.etag);
  for (const std::string& path : paths) request.mutable_update_mask()->add_paths(path);
  config::v1::UpdateMailboxResponse response;
  const grpc::Status status =
      MailboxService::NewStub(context.config())->UpdateMailbox(Call().get(), request, &response);
  if (status.ok()) Print(context, response.mailbox());
  return ReportChange(status);
}

int List(const Context& context) {
  auto stub = MailboxService::NewStub(context.config());
  config::v1::ListMailboxesRequest request;
  config::v1::ListMailboxesResponse all;
  do {
    config::v1::ListMailboxesResponse page;
    const grpc::Status status = stub->ListMailboxes(Call().get(), request, &page);
    if (!status.ok()) return Report(status);
    all.mutable_mailboxes()->MergeFrom(page.mailboxes());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  if (context.json()) {
    std::cout << Json(all) << "\n";
    return 0;
  }
  std::vector<std::vector<std::string>> rows{{"NAME", "DISPLAY NAME", "ADDRESS", "SERVER", "ENABLED"}};
  for (const Mailbox& m : all.mailboxes()) {
    rows.push_back({m.name(), m.display_name(), m.address(),
                    m.connection().host() + ":" + std::to_string(m.connection().port()), m.enabled() ? "yes" : "no"});
  }
  std::cout << Table(rows);
  return 0;
}

int Get(const Context& context, const std::string& what) {
  Mailbox mailbox;
  const grpc::Status found = FindMailbox(context, what, mailbox);
  if (found.ok()) Print(context, mailbox);
  return Report(found);
}

int Delete(const Context& context, const std::string& what, const std::string& etag) {
  Mailbox mailbox;
  if (const grpc::Status found = FindMailbox(context, what, mailbox); !found.ok()) return Report(found);
  config::v1::DeleteMailboxRequest request;
  request.set_name(mailbox.name());
  request.set_etag(etag);
  google::protobuf::Empty nothing;
  return Report(MailboxService::NewStub(context.config())->DeleteMailbox(Call().get(), request, &nothing));
}

int Status(const Context& context, const std::string& what) {
  auto stub = fetcher::v1::FetchService::NewStub(context.fetcher());
  fetcher::v1::ListStatusesResponse all;
  if (!what.empty()) {
    Mailbox mailbox;
    if (const grpc::Status found = FindMailbox(context, what, mailbox); !found.ok()) return Report(found);
    fetcher::v1::GetStatusRequest request;
    request.set_mailbox(mailbox.name());
    fetcher::v1::GetStatusResponse response;
    const grpc::Status status = stub->GetStatus(Call().get(), request, &response);
    if (!status.ok()) return Report(status);
    *all.add_statuses() = response.status();
  } else {
    fetcher::v1::ListStatusesRequest request;
    do {
      fetcher::v1::ListStatusesResponse page;
      const grpc::Status status = stub->ListStatuses(Call().get(), request, &page);
      if (!status.ok()) return Report(status);
      all.mutable_statuses()->MergeFrom(page.statuses());
      request.set_page_token(page.next_page_token());
    } while (!request.page_token().empty());
  }
  if (context.json()) {
    std::cout << Json(all) << "\n";
    return 0;
  }
  std::vector<std::vector<std::string>> rows{
      {"MAILBOX", "STATE", "LAST SUCCESS", "NEXT POLL", "PENDING", "PUBLISHED", "REASON"}};
  for (const auto& s : all.statuses()) {
    rows.push_back({s.mailbox(), Short(fetcher::v1::MailboxStatus::State_Name(s.state()), "STATE_"),
                    Time(s.last_success_time()), Time(s.next_poll_time()), std::to_string(s.pending()),
                    std::to_string(s.published()),
                    s.reason().empty() ? s.notice() : s.reason() + ": " + s.reason_text()});
  }
  std::cout << Table(rows);
  return 0;
}

int Explain(const Context& context, const std::string& what, const std::string& message_id) {
  Mailbox mailbox;
  if (const grpc::Status found = FindMailbox(context, what, mailbox); !found.ok()) return Report(found);
  fetcher::v1::ExplainRequest request;
  request.set_mailbox(mailbox.name());
  request.set_message_id(message_id);
  fetcher::v1::ExplainResponse response;
  const grpc::Status status =
      fetcher::v1::MessageService::NewStub(context.fetcher())->Explain(Call().get(), request, &response);
  if (!status.ok()) return Report(status);
  if (context.json()) {
    std::cout << Json(response) << "\n";
    return 0;
  }
  std::vector<std::vector<std::string>> rows{{"OUTCOME", "UID", "TICKET", "MESSAGE", "REASON"}};
  for (const auto& o : response.outcomes()) {
    rows.push_back({Short(fetcher::v1::Outcome::Kind_Name(o.kind()), "KIND_"),
                    std::to_string(o.server_identity().uid()), o.ticket(), o.message(),
                    o.duplicate_of().empty() ? o.reason() : o.reason() + " " + o.duplicate_of()});
  }
  std::cout << Table(rows);
  std::cerr << Escape(response.server_note()) << "\n";
  return response.outcomes().empty() ? 3 : 0;
}

}  // namespace

void AddMailboxCommands(CLI::App& app, Context& context) {
  CLI::App* noun = app.add_subcommand("mailbox", "Mailboxes")->require_subcommand(1);
  auto options = std::make_shared<MailboxOptions>();
  auto what = std::make_shared<std::string>();
  auto message_id = std::make_shared<std::string>();
  CLI::App* create = Command(*noun, context, "create", "Make an inbound mailbox",
                             [&context, options] { return Create(context, *options); });
  AddOptions(create, *options);
  create->add_option("--id", options->id, "Last part of the resource name");
  CLI::App* update = Command(*noun, context, "update", "Change what is given",
                             [&context, what, options] { return Update(context, *what, *options); });
  update->add_option("MAILBOX", *what)->required();
  update->add_option("--etag", options->etag, "Change only this state of it");
  AddOptions(update, *options);
  Command(*noun, context, "list", "All mailboxes", [&context] { return List(context); });
  Command(*noun, context, "get", "One mailbox", [&context, what] { return Get(context, *what); })
      ->add_option("MAILBOX", *what)
      ->required();
  CLI::App* remove = Command(*noun, context, "delete", "Delete a mailbox; what it delivered stays",
                             [&context, what, options] { return Delete(context, *what, options->etag); });
  remove->add_option("MAILBOX", *what)->required();
  remove->add_option("--etag", options->etag, "Delete only this state of it");
  Command(*noun, context, "status", "How fetching goes", [&context, what] {
    return Status(context, *what);
  })->add_option("MAILBOX", *what);
  CLI::App* explain = Command(*noun, context, "explain", "What became of a mail",
                              [&context, what, message_id] { return Explain(context, *what, *message_id); });
  explain->add_option("MAILBOX", *what)->required();
  explain->add_option("MESSAGE-ID", *message_id)->required();
}

}  // namespace poststelle::cli
