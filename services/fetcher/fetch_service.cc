#include "services/fetcher/fetch_service.h"

#include "absl/strings/str_cat.h"
#include "libs/rpc/page_token.h"
#include "libs/rpc/unary.h"
#include "services/fetcher/names.h"

namespace poststelle::fetcher {

grpc::ServerUnaryReactor* FetchService::GetStatus(grpc::CallbackServerContext* context,
                                                  const v1::GetStatusRequest* request,
                                                  v1::GetStatusResponse* response) {
  return rpc::Unary(context, gate_, *request, Get(*request, *response));
}

grpc::ServerUnaryReactor* FetchService::ListStatuses(grpc::CallbackServerContext* context,
                                                     const v1::ListStatusesRequest* request,
                                                     v1::ListStatusesResponse* response) {
  return rpc::Unary(context, gate_, *request, List(*request, *response));
}

async::Task<grpc::Status> FetchService::Get(const v1::GetStatusRequest& request, v1::GetStatusResponse& response) {
  std::vector<rpc::Violation> violations;
  const std::string id = IdOf(request.mailbox(), "mailboxes", "mailbox", violations);
  if (!violations.empty()) co_return rpc::InvalidFields(violations);
  MailboxRef mailbox = catalog_.Find(id);
  if (mailbox == nullptr) {
    co_return rpc::Error(grpc::StatusCode::NOT_FOUND, "MAILBOX_NOT_FOUND",
                         absl::StrCat("there is no mailbox ", request.mailbox()), {{"mailbox", request.mailbox()}});
  }
  absl::StatusOr<v1::MailboxStatus> status = co_await board_.Get(*mailbox);
  if (!status.ok()) co_return rpc::FromAbsl(status.status());
  *response.mutable_status() = *std::move(status);
  co_return grpc::Status::OK;
}

async::Task<grpc::Status> FetchService::List(const v1::ListStatusesRequest& request,
                                             v1::ListStatusesResponse& response) {
  std::vector<rpc::Violation> violations;
  const Page page = PageOf(request.page_size(), request.page_token(), 50, feed_.epoch, "statuses", violations);
  if (!violations.empty()) co_return rpc::InvalidFields(violations);
  for (const MailboxRef& mailbox : catalog_.List()) {  // by id
    const std::string id = MailboxIdOf(mailbox->name());
    if (id <= page.position) continue;
    if (response.statuses_size() == page.size) {
      const std::string last = MailboxIdOf(response.statuses(page.size - 1).mailbox());
      response.set_next_page_token(rpc::MakePageToken(feed_.epoch, "statuses", last));
      break;
    }
    absl::StatusOr<v1::MailboxStatus> status = co_await board_.Get(*mailbox);
    if (!status.ok()) co_return rpc::FromAbsl(status.status());
    *response.add_statuses() = *std::move(status);
  }
  co_return grpc::Status::OK;
}

}  // namespace poststelle::fetcher
