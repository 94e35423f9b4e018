#include "cli/resources.h"

#include <functional>

#include "poststelle/config/v1/label_service.grpc.pb.h"
#include "poststelle/config/v1/ticket_status_service.grpc.pb.h"

namespace poststelle::cli {
namespace {

namespace v1 = config::v1;
using google::protobuf::Message;

std::string StringField(const Message& message, const std::string& field) {
  return message.GetReflection()->GetString(message, message.GetDescriptor()->FindFieldByName(field));
}

// Calls `list` page by page; `take` gets each page.
template <typename Request, typename Response>
grpc::Status AllPages(std::function<grpc::Status(const Request&, Response*)> list,
                      std::function<void(const Response&)> take) {
  Request request;
  request.set_page_size(1000);
  do {
    Response page;
    grpc::Status status = list(request, &page);
    if (!status.ok()) return status;
    take(page);
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return grpc::Status::OK;
}

template <typename Entries>
void Keep(const Entries& entries, std::map<std::string, std::unique_ptr<Message>>& all) {
  for (const auto& entry : entries) all[entry.name()] = std::make_unique<std::decay_t<decltype(entry)>>(entry);
}

}  // namespace

std::string NameOf(const Message& message) { return StringField(message, "name"); }
std::string EtagOf(const Message& message) { return StringField(message, "etag"); }

grpc::Status Resources::Load() {
  all_.clear();
  auto statuses = v1::TicketStatusService::NewStub(context_.config());
  auto labels = v1::LabelService::NewStub(context_.config());
  auto mailboxes = v1::MailboxService::NewStub(context_.config());
  grpc::Status status = AllPages<v1::ListTicketStatusesRequest, v1::ListTicketStatusesResponse>(
      [&](const auto& request, auto* page) { return statuses->ListTicketStatuses(Call().get(), request, page); },
      [this](const auto& page) { Keep(page.ticket_statuses(), all_); });
  if (!status.ok()) return status;
  status = AllPages<v1::ListLabelsRequest, v1::ListLabelsResponse>(
      [&](const auto& request, auto* page) { return labels->ListLabels(Call().get(), request, page); },
      [this](const auto& page) { Keep(page.labels(), all_); });
  if (!status.ok()) return status;
  return AllPages<v1::ListMailboxesRequest, v1::ListMailboxesResponse>(
      [&](const auto& request, auto* page) { return mailboxes->ListMailboxes(Call().get(), request, page); },
      [this](const auto& page) { Keep(page.mailboxes(), all_); });
}

std::unique_ptr<Message> Resources::Find(const std::string& name) const {
  auto found = all_.find(name);
  if (found == all_.end()) return nullptr;
  std::unique_ptr<Message> copy(found->second->New());
  copy->CopyFrom(*found->second);
  return copy;
}

grpc::Status Resources::Put(Message& message, bool only_try) {
  grpc::Status status;
  if (auto* mailbox = dynamic_cast<v1::Mailbox*>(&message)) {
    v1::UpdateMailboxRequest request;
    *request.mutable_mailbox() = *mailbox;
    request.mutable_update_mask()->add_paths("*");
    request.set_allow_missing(true);
    request.set_validate_only(only_try);
    v1::UpdateMailboxResponse response;
    status = v1::MailboxService::NewStub(context_.config())->UpdateMailbox(Call().get(), request, &response);
    *mailbox = response.mailbox();
  } else if (auto* entry = dynamic_cast<v1::TicketStatus*>(&message)) {
    v1::UpdateTicketStatusRequest request;
    *request.mutable_ticket_status() = *entry;
    request.mutable_update_mask()->add_paths("*");
    request.set_allow_missing(true);
    request.set_validate_only(only_try);
    v1::UpdateTicketStatusResponse response;
    status = v1::TicketStatusService::NewStub(context_.config())->UpdateTicketStatus(Call().get(), request, &response);
    *entry = response.ticket_status();
  } else if (auto* label = dynamic_cast<v1::Label*>(&message)) {
    v1::UpdateLabelRequest request;
    *request.mutable_label() = *label;
    request.mutable_update_mask()->add_paths("*");
    request.set_allow_missing(true);
    request.set_validate_only(only_try);
    v1::UpdateLabelResponse response;
    status = v1::LabelService::NewStub(context_.config())->UpdateLabel(Call().get(), request, &response);
    *label = response.label();
  }
  if (status.ok() && !only_try) {
    std::unique_ptr<Message> copy(message.New());
    copy->CopyFrom(message);
    all_[NameOf(message)] = std::move(copy);
  }
  return status;
}

std::vector<std::pair<std::string, const Message*>> Resources::All() const {
  std::vector<std::pair<std::string, const Message*>> out;
  auto add = [&](const std::string& kind, auto wanted) {
    for (const auto& [name, message] : all_) {
      if (wanted(*message)) out.emplace_back(kind, message.get());
    }
  };
  auto outbound = [](const Message& m) {
    const auto* mailbox = dynamic_cast<const v1::Mailbox*>(&m);
    return mailbox != nullptr && mailbox->direction() == v1::Mailbox::DIRECTION_OUTBOUND;
  };
  add("TicketStatus", [](const Message& m) { return dynamic_cast<const v1::TicketStatus*>(&m) != nullptr; });
  add("Label", [](const Message& m) { return dynamic_cast<const v1::Label*>(&m) != nullptr; });
  add("Mailbox", outbound);
  add("Mailbox",
      [&outbound](const Message& m) { return dynamic_cast<const v1::Mailbox*>(&m) != nullptr && !outbound(m); });
  return out;
}

}  // namespace poststelle::cli
