#include <iostream>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "cli/context.h"
#include "cli/mailbox_options.h"
#include "cli/output.h"
#include "cli/suggest.h"
#include "libs/rpc/status.h"
#include "poststelle/fetcher/v1/fetch_service.grpc.pb.h"
#include "poststelle/fetcher/v1/message_service.grpc.pb.h"

namespace poststelle::cli {
namespace {

using config::v1::Connection;
using config::v1::Mailbox;
using config::v1::MailboxService;

std::string Server(const Mailbox& m) { return m.connection().host() + ":" + std::to_string(m.connection().port()); }
std::string OrDash(const std::string& text) { return text.empty() ? "-" : text; }

void Print(const Context& context, const Mailbox& m) {
  if (context.json()) {
    std::cout << Json(m) << "\n";
    return;
  }
  const auto& import = m.import_options();
  const bool inbound = m.direction() == Mailbox::DIRECTION_INBOUND;
  std::vector<std::vector<std::string>> rows{
      {"name", m.name()},
      {"display name", m.display_name()},
      {"direction", Short(Mailbox::Direction_Name(m.direction()), "DIRECTION_")},
      {"address", m.address()},
      {"server", Server(m)},
      {"encryption", Short(Connection::Encryption_Name(m.connection().encryption()), "ENCRYPTION_")},
      {"login",
       m.password_authentication().login_name().empty() ? m.address() : m.password_authentication().login_name()},
      {"password", m.password_authentication().password_set() ? "stored" : "none"}};
  if (inbound) {
    const auto& after = import.after_import();
    rows.insert(rows.end(),
                {{"folders", absl::StrJoin(import.folders(), ", ")},
                 {"max age", import.unlimited_age() ? "unlimited" : std::to_string(import.max_age_days()) + " days"},
                 {"interval", std::to_string(import.fetch_interval().seconds()) + " s"},
                 {"read mail", import.also_fetch_read() ? "imported too" : "passed over"},
                 {"after import", after.action() == 0 ? "leave"
                                                      : Short(after.Action_Name(after.action()), "ACTION_") + " " +
                                                            after.target_folder()},
                 {"reply via", OrDash(import.reply_via())},
                 {"new tickets", OrDash(import.new_ticket_status())},
                 {"replies", OrDash(import.reply_ticket_status())},
                 {"ticket labels", OrDash(absl::StrJoin(import.ticket_labels(), ", "))}});
  }
  std::vector<std::string> labels;
  for (const auto& [key, value] : std::map<std::string, std::string>(m.labels().begin(), m.labels().end())) {
    labels.push_back(absl::StrCat(key, "=", value));
  }
  rows.insert(rows.end(), {{"counterpart", OrDash(m.counterpart())},
                           {"labels", OrDash(absl::StrJoin(labels, ", "))},
                           {"enabled", m.enabled() ? "yes" : "no"},
                           {"etag", m.etag()}});
  std::cout << Table(rows);
  for (const auto& warning : m.warnings())
    std::cerr << "warning: " << warning.field() << ": " << warning.text().en() << "\n";
}

// Report, and how to give a password that the service asks for.
int ReportChange(const grpc::Status& status) {
  const int exit_code = Report(status);
  for (const rpc::Violation& v : rpc::ViolationsOf(status)) {
    if (!absl::EndsWith(v.field, ".password_authentication.password")) continue;
    std::cerr << "give it with --password-stdin, --password-file FILE or in POSTSTELLE_MAILBOX_PASSWORD\n";
  }
  return exit_code;
}

int Create(const Context& context, const MailboxOptions& o) {
  config::v1::CreateMailboxRequest request;
  std::vector<std::string> paths;
  Mailbox& m = *request.mutable_mailbox();
  m.set_direction(o.outbound ? Mailbox::DIRECTION_OUTBOUND : Mailbox::DIRECTION_INBOUND);
  m.mutable_connection()->set_protocol(o.outbound ? Connection::PROTOCOL_SMTP : Connection::PROTOCOL_IMAP);
  m.mutable_password_authentication();
  int exit_code = 0;
  if (o.suggest && o.host.empty() && !FillFromSuggestion(context, o.address, o.encryption, m, exit_code)) {
    return exit_code;
  }
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

// What the fetcher says of each mailbox; empty, with a note, while it can't be asked.
std::map<std::string, fetcher::v1::MailboxStatus> Statuses(const Context& context) {
  std::map<std::string, fetcher::v1::MailboxStatus> out;
  auto stub = fetcher::v1::FetchService::NewStub(context.fetcher());
  fetcher::v1::ListStatusesRequest request;
  request.set_page_size(1000);
  do {
    fetcher::v1::ListStatusesResponse page;
    const grpc::Status status = stub->ListStatuses(Call().get(), request, &page);
    if (!status.ok()) {
      std::cerr << "note: the fetcher can't tell how the mailboxes are: " << Escape(status.error_message()) << "\n";
      return out;
    }
    for (const auto& s : page.statuses()) out[s.mailbox()] = s;
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return out;
}

// The overview (SPEC A1).
int List(const Context& context, config::v1::ListMailboxesRequest request) {
  auto stub = MailboxService::NewStub(context.config());
  config::v1::ListMailboxesResponse all;
  request.set_page_size(1000);
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
  const auto statuses = Statuses(context);
  std::vector<std::vector<std::string>> rows{{"NAME", "DISPLAY NAME", "DIRECTION", "PROTOCOL", "ADDRESS", "SERVER",
                                              "ENABLED", "STATE", "LAST SUCCESS", "NEXT RUN", "REASON"}};
  for (const Mailbox& m : all.mailboxes()) {
    std::vector<std::string> row{m.name(),
                                 m.display_name(),
                                 Short(Mailbox::Direction_Name(m.direction()), "DIRECTION_"),
                                 Short(Connection::Protocol_Name(m.connection().protocol()), "PROTOCOL_"),
                                 m.address(),
                                 Server(m),
                                 m.enabled() ? "yes" : "no"};
    if (const auto known = statuses.find(m.name()); known != statuses.end()) {
      const fetcher::v1::MailboxStatus& s = known->second;
      row.insert(row.end(), {Short(s.State_Name(s.state()), "STATE_"), Time(s.last_success_time()),
                             Time(s.next_poll_time()), s.reason().empty() ? s.notice() : s.reason()});
    } else {
      row.insert(row.end(), {"-", "-", "-", ""});
    }
    rows.push_back(std::move(row));
  }
  std::cout << Table(rows);
  return 0;
}

int Duplicate(const Context& context, const std::string& what, const MailboxOptions& o, bool counterpart) {
  Mailbox present;
  if (const grpc::Status found = FindMailbox(context, what, present); !found.ok()) return Report(found);
  using Request = config::v1::DuplicateMailboxRequest;
  Request request;
  request.set_name(present.name());
  request.set_kind(counterpart ? Request::KIND_COUNTERPART : Request::KIND_COPY);
  std::vector<std::string> paths;
  if (!Fill(o, *request.mutable_overrides(), paths)) return 2;
  for (const std::string& path : paths) {
    if (path != "display_name") request.mutable_override_mask()->add_paths(path);
  }
  request.set_display_name(o.display_name);
  request.set_mailbox_id(o.id);
  config::v1::DuplicateMailboxResponse response;
  const grpc::Status status =
      MailboxService::NewStub(context.config())->DuplicateMailbox(Call().get(), request, &response);
  if (status.ok()) Print(context, response.mailbox());
  return ReportChange(status);
}

int Get(const Context& context, const std::string& what) {
  Mailbox mailbox;
  const grpc::Status found = FindMailbox(context, what, mailbox);
  if (found.ok()) Print(context, mailbox);
  return Report(found);
}

int Delete(const Context& context, const std::string& what, const std::string& etag, bool clear_references) {
  Mailbox mailbox;
  if (const grpc::Status found = FindMailbox(context, what, mailbox); !found.ok()) return Report(found);
  config::v1::DeleteMailboxRequest request;
  request.set_name(mailbox.name());
  request.set_etag(etag);
  request.set_clear_references(clear_references);
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

void AddListCommand(CLI::App& noun, Context& context) {
  struct Wanted {
    std::string direction, text, order;
    std::vector<std::string> selectors;
    bool enabled = false, disabled = false;
  };
  auto wanted = std::make_shared<Wanted>();
  CLI::App* list = Command(noun, context, "list", "Mailboxes and how they are", [&context, wanted] {
    config::v1::ListMailboxesRequest request;
    if (wanted->direction == "inbound") request.set_direction(Mailbox::DIRECTION_INBOUND);
    if (wanted->direction == "outbound") request.set_direction(Mailbox::DIRECTION_OUTBOUND);
    if (wanted->enabled || wanted->disabled) request.set_enabled(wanted->enabled);
    request.mutable_label_selectors()->Assign(wanted->selectors.begin(), wanted->selectors.end());
    request.set_text(wanted->text);
    request.set_order_by(wanted->order);
    return List(context, std::move(request));
  });
  list->add_option("--direction", wanted->direction, "inbound or outbound")
      ->check(CLI::IsMember({"inbound", "outbound"}));
  CLI::Option* disabled = list->add_flag("--disabled", wanted->disabled, "Only these");
  list->add_flag("--enabled", wanted->enabled, "Only these")->excludes(disabled);
  list->add_option("-l,--selector", wanted->selectors, "Only with this label, KEY or KEY=VALUE; may be repeated");
  list->add_option("--text", wanted->text, "Only with this in name, address, login or server");
  list->add_option("--order", wanted->order, "display_name, address, create_time or update_time, \" desc\" behind it");
}

}  // namespace

void AddMailboxCommands(CLI::App& app, Context& context) {
  CLI::App* noun = app.add_subcommand("mailbox", "Mailboxes")->require_subcommand(1);
  AddMailboxTestCommands(*noun, context);
  auto options = std::make_shared<MailboxOptions>();
  auto what = std::make_shared<std::string>();
  auto message_id = std::make_shared<std::string>();
  auto clear = std::make_shared<bool>(false);
  CLI::App* create =
      Command(*noun, context, "create", "Make a mailbox", [&context, options] { return Create(context, *options); });
  AddOptions(create, *options);
  create->add_flag("--outbound,!--inbound", options->outbound, "Answers are sent through it (default: inbound)");
  create->add_option("--id", options->id, "Last part of the resource name");
  create->add_flag("--suggest", options->suggest,
                   "Without --host: take the server that is known for the address (see `mailbox suggest`)");
  Command(*noun, context, "suggest", "What is known about an address: servers, provider, what to look out for",
          [&context, what] { return Suggest(context, *what); })
      ->add_option("ADDRESS", *what)
      ->required();
  CLI::App* update = Command(*noun, context, "update", "Change what is given",
                             [&context, what, options] { return Update(context, *what, *options); });
  update->add_option("MAILBOX", *what)->required();
  update->add_option("--etag", options->etag, "Change only this state of it");
  AddOptions(update, *options);
  AddListCommand(*noun, context);
  for (const bool counterpart : {false, true}) {
    CLI::App* duplicate =
        Command(*noun, context, counterpart ? "counterpart" : "copy",
                counterpart ? "Make the mailbox of the other direction for the same account"
                            : "Make a mailbox with the same settings, but for what is given",
                [&context, what, options, counterpart] { return Duplicate(context, *what, *options, counterpart); });
    duplicate->add_option("MAILBOX", *what)->required();
    duplicate->add_option("--id", options->id, "Last part of the new resource name");
    AddOptions(duplicate, *options);
  }
  Command(*noun, context, "get", "One mailbox", [&context, what] { return Get(context, *what); })
      ->add_option("MAILBOX", *what)
      ->required();
  CLI::App* remove =
      Command(*noun, context, "delete", "Delete a mailbox; what it delivered stays",
              [&context, what, options, clear] { return Delete(context, *what, options->etag, *clear); });
  remove->add_option("MAILBOX", *what)->required();
  remove->add_option("--etag", options->etag, "Delete only this state of it");
  remove->add_flag("--clear-references", *clear, "Also where others reply through it");
  Command(*noun, context, "status", "How fetching goes", [&context, what] {
    return Status(context, *what);
  })->add_option("MAILBOX", *what);
  CLI::App* explain = Command(*noun, context, "explain", "What became of a mail",
                              [&context, what, message_id] { return Explain(context, *what, *message_id); });
  explain->add_option("MAILBOX", *what)->required();
  explain->add_option("MESSAGE-ID", *message_id)->required();
}

}  // namespace poststelle::cli
