#include "services/fetcher/quarantine_service.h"

#include "libs/base/page_budget.h"
#include "libs/rpc/page_token.h"
#include "libs/rpc/unary.h"
#include "services/fetcher/names.h"
#include "services/fetcher/time_page.h"

namespace poststelle::fetcher {

grpc::ServerUnaryReactor* QuarantineService::ListQuarantinedMessages(grpc::CallbackServerContext* context,
                                                                     const v1::ListQuarantinedMessagesRequest* request,
                                                                     v1::ListQuarantinedMessagesResponse* response) {
  return rpc::Unary(context, gate_, *request, List(*request, *response));
}

grpc::ServerUnaryReactor* QuarantineService::GetQuarantinedMessage(grpc::CallbackServerContext* context,
                                                                   const v1::GetQuarantinedMessageRequest* request,
                                                                   v1::GetQuarantinedMessageResponse* response) {
  return rpc::Unary(context, gate_, *request, Get(*request, *response));
}

async::Task<grpc::Status> QuarantineService::List(const v1::ListQuarantinedMessagesRequest& request,
                                                  v1::ListQuarantinedMessagesResponse& response) {
  std::vector<rpc::Violation> violations;
  const TimePage page(request, "quarantine", feed_.epoch, violations);
  if (!violations.empty()) co_return rpc::InvalidFields(violations);
  auto entries = co_await queries_.ListQuarantined(page.mailbox_id, page.after, page.size + 1);
  if (!entries.ok()) co_return rpc::FromAbsl(entries.status());
  PageBudget budget;
  for (v1::QuarantinedMessage& entry : *entries) {
    if (response.messages_size() == page.size || !budget.Take(entry.ByteSizeLong())) {
      const v1::QuarantinedMessage& last = response.messages(response.messages_size() - 1);
      response.set_next_page_token(page.TokenAfter(ToMs(last.create_time()), last.name()));
      break;
    }
    *response.add_messages() = std::move(entry);
  }
  co_return grpc::Status::OK;
}

async::Task<grpc::Status> QuarantineService::Get(const v1::GetQuarantinedMessageRequest& request,
                                                 v1::GetQuarantinedMessageResponse& response) {
  std::vector<rpc::Violation> violations;
  const std::string id = IdOf(request.name(), "messages", "name", violations);
  if (!violations.empty()) co_return rpc::InvalidFields(violations);
  auto entry = co_await queries_.GetQuarantined(id);
  if (!entry.ok()) co_return rpc::FromAbsl(entry.status());
  *response.mutable_message() = *std::move(entry);
  co_return grpc::Status::OK;
}

}  // namespace poststelle::fetcher
