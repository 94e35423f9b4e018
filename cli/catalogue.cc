// The catalogues: ticket statuses and labels.
#include <iostream>

#include "cli/context.h"
#include "cli/output.h"
#include "poststelle/config/v1/label_service.grpc.pb.h"
#include "poststelle/config/v1/ticket_status_service.grpc.pb.h"

namespace poststelle::cli {
namespace {

namespace v1 = config::v1;

struct EntryOptions {
  std::string what, id, german, english, color, replacement, text;
};

// One catalogue and its service; the messages of both have one shape.
struct StatusApi {
  using Service = v1::TicketStatusService;
  using Entry = v1::TicketStatus;
  static constexpr const char* kCollection = "ticketStatuses/";
  static auto List(Service::Stub& stub, const v1::ListTicketStatusesRequest& request,
                   v1::ListTicketStatusesResponse* page) {
    return stub.ListTicketStatuses(Call().get(), request, page);
  }
  static const auto& Entries(const v1::ListTicketStatusesResponse& page) { return page.ticket_statuses(); }
  using ListRequest = v1::ListTicketStatusesRequest;
  using ListResponse = v1::ListTicketStatusesResponse;
  using DeleteRequest = v1::DeleteTicketStatusRequest;
  static auto Delete(Service::Stub& stub, const DeleteRequest& request) {
    google::protobuf::Empty nothing;
    return stub.DeleteTicketStatus(Call().get(), request, &nothing);
  }
  static auto Create(Service::Stub& stub, const Entry& entry, const std::string& id, Entry* made) {
    v1::CreateTicketStatusRequest request;
    *request.mutable_ticket_status() = entry;
    request.set_ticket_status_id(id);
    v1::CreateTicketStatusResponse response;
    const grpc::Status status = stub.CreateTicketStatus(Call().get(), request, &response);
    *made = response.ticket_status();
    return status;
  }
  static auto Update(Service::Stub& stub, const Entry& entry, const google::protobuf::FieldMask& mask, Entry* made) {
    v1::UpdateTicketStatusRequest request;
    *request.mutable_ticket_status() = entry;
    *request.mutable_update_mask() = mask;
    v1::UpdateTicketStatusResponse response;
    const grpc::Status status = stub.UpdateTicketStatus(Call().get(), request, &response);
    *made = response.ticket_status();
    return status;
  }
};

struct LabelApi {
  using Service = v1::LabelService;
  using Entry = v1::Label;
  static constexpr const char* kCollection = "labels/";
  using ListRequest = v1::ListLabelsRequest;
  using ListResponse = v1::ListLabelsResponse;
  using DeleteRequest = v1::DeleteLabelRequest;
  static auto List(Service::Stub& stub, const ListRequest& request, ListResponse* page) {
    return stub.ListLabels(Call().get(), request, page);
  }
  static const auto& Entries(const ListResponse& page) { return page.labels(); }
  static auto Delete(Service::Stub& stub, const DeleteRequest& request) {
    google::protobuf::Empty nothing;
    return stub.DeleteLabel(Call().get(), request, &nothing);
  }
  static auto Create(Service::Stub& stub, const Entry& entry, const std::string& id, Entry* made) {
    v1::CreateLabelRequest request;
    *request.mutable_label() = entry;
    request.set_label_id(id);
    v1::CreateLabelResponse response;
    const grpc::Status status = stub.CreateLabel(Call().get(), request, &response);
    *made = response.label();
    return status;
  }
  static auto Update(Service::Stub& stub, const Entry& entry, const google::protobuf::FieldMask& mask, Entry* made) {
    v1::UpdateLabelRequest request;
    *request.mutable_label() = entry;
    *request.mutable_update_mask() = mask;
    v1::UpdateLabelResponse response;
    const grpc::Status status = stub.UpdateLabel(Call().get(), request, &response);
    *made = response.label();
    return status;
  }
};

template <typename Api>
std::string FullName(const std::string& what) {
  return what.find('/') == std::string::npos ? Api::kCollection + what : what;
}

template <typename Api>
typename Api::Entry Described(const EntryOptions& o, google::protobuf::FieldMask& mask) {
  typename Api::Entry entry;
  entry.set_german_name(o.german);
  entry.set_english_name(o.english);
  entry.set_color(o.color);
  if (!o.german.empty()) mask.add_paths("german_name");
  if (!o.english.empty()) mask.add_paths("english_name");
  if (!o.color.empty()) mask.add_paths("color");
  return entry;
}

template <typename Entry>
int Shown(const Context& context, const grpc::Status& status, const Entry& entry) {
  if (!status.ok()) return Report(status);
  if (context.json()) {
    std::cout << Json(entry) << "\n";
  } else {
    std::cout << Table({{"name", entry.name()},
                        {"german", entry.german_name()},
                        {"english", entry.english_name()},
                        {"colour", entry.color()}});
  }
  return 0;
}

template <typename Api>
int List(const Context& context, const std::string& text) {
  auto stub = Api::Service::NewStub(context.config());
  typename Api::ListRequest request;
  typename Api::ListResponse all;
  request.set_text(text);
  request.set_page_size(1000);
  do {
    typename Api::ListResponse page;
    const grpc::Status status = Api::List(*stub, request, &page);
    if (!status.ok()) return Report(status);
    request.set_page_token(page.next_page_token());
    page.clear_next_page_token();
    all.MergeFrom(page);
  } while (!request.page_token().empty());
  if (context.json()) {
    std::cout << Json(all) << "\n";
    return 0;
  }
  std::vector<std::vector<std::string>> rows{{"NAME", "GERMAN", "ENGLISH", "COLOUR"}};
  for (const auto& entry : Api::Entries(all)) {
    rows.push_back({entry.name(), entry.german_name(), entry.english_name(), entry.color()});
  }
  std::cout << Table(rows);
  return 0;
}

template <typename Api>
void AddCatalogue(CLI::App& app, Context& context, const std::string& name, const std::string& help) {
  CLI::App* noun = app.add_subcommand(name, help)->require_subcommand(1);
  auto o = std::make_shared<EntryOptions>();
  auto describe = [o](CLI::App* command) {
    command->add_option("--german", o->german, "German name");
    command->add_option("--english", o->english, "English name (default: the German one)");
    command->add_option("--color", o->color, "Colour like #1e88e5");
  };
  Command(*noun, context, "list", "All of them, or those with a text in their names", [&context, o] {
    return List<Api>(context, o->text);
  })->add_option("--text", o->text, "Part of a name");
  CLI::App* create = Command(*noun, context, "create", "Make one", [&context, o] {
    google::protobuf::FieldMask mask;
    typename Api::Entry made;
    auto stub = Api::Service::NewStub(context.config());
    const grpc::Status status = Api::Create(*stub, Described<Api>(*o, mask), o->id, &made);
    return Shown(context, status, made);
  });
  create->add_option("--id", o->id, "Last part of the resource name");
  describe(create);
  CLI::App* update = Command(*noun, context, "update", "Rename or recolour one", [&context, o] {
    google::protobuf::FieldMask mask;
    typename Api::Entry entry = Described<Api>(*o, mask);
    if (mask.paths().empty()) {
      std::cerr << "error: nothing to change was given\n";
      return 2;
    }
    entry.set_name(FullName<Api>(o->what));
    typename Api::Entry made;
    auto stub = Api::Service::NewStub(context.config());
    const grpc::Status status = Api::Update(*stub, entry, mask, &made);
    return Shown(context, status, made);
  });
  update->add_option("NAME", o->what)->required();
  describe(update);
  CLI::App* remove = Command(*noun, context, "delete", "Delete one that no mailbox uses, or replace it", [&context, o] {
    typename Api::DeleteRequest request;
    request.set_name(FullName<Api>(o->what));
    if (!o->replacement.empty()) request.set_replacement(FullName<Api>(o->replacement));
    auto stub = Api::Service::NewStub(context.config());
    return Report(Api::Delete(*stub, request));
  });
  remove->add_option("NAME", o->what)->required();
  remove->add_option("--replacement", o->replacement, "What mailboxes get instead");
}

}  // namespace

void AddCatalogueCommands(CLI::App& app, Context& context) {
  AddCatalogue<StatusApi>(app, context, "status", "Ticket statuses");
  AddCatalogue<LabelApi>(app, context, "label", "Ticket labels");
}

}  // namespace poststelle::cli
