#include "services/fetcher/message_service.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "libs/base/ids.h"
#include "libs/base/status_macros.h"
#include "libs/rpc/server_stream.h"
#include "libs/rpc/unary.h"
#include "services/fetcher/names.h"

namespace poststelle::fetcher {
namespace {

using RawStream = rpc::StreamOut<v1::DownloadRawResponse>;

async::Task<grpc::Status> Download(LedgerQueries& queries, v1::DownloadRawRequest request,
                                   std::shared_ptr<RawStream> stream) {
  std::vector<rpc::Violation> violations;
  const std::string id = IdOf(request.name(), "messages", "name", violations);
  if (!violations.empty()) co_return rpc::InvalidFields(violations);
  absl::StatusOr<LedgerQueries::RawInfo> info = co_await queries.FindRaw(id);
  if (!info.ok()) co_return rpc::FromAbsl(info.status());
  if (request.offset() < 0 || request.offset() > info->size) {
    rpc::Violation violation;
    violation.field = "offset";
    violation.description = absl::StrCat("must be 0 to ", info->size);
    violations.push_back(std::move(violation));
    co_return rpc::InvalidFields(violations);
  }
  int64_t at = request.offset();
  do {
    v1::DownloadRawResponse piece;
    piece.set_offset(at);
    piece.set_sha256(Hex(info->sha256));
    piece.set_total_size(info->size);
    const auto index = static_cast<int>(at / static_cast<int64_t>(blob::kChunkBytes));
    if (index < info->chunks) {
      absl::StatusOr<std::string> chunk = co_await queries.ReadRawChunk(info->sha256, index);
      if (!chunk.ok()) co_return rpc::FromAbsl(chunk.status());
      piece.set_data(chunk->substr(static_cast<size_t>(at) % blob::kChunkBytes));
    }
    at += static_cast<int64_t>(piece.data().size());
    const bool sent = co_await stream->Write(piece);
    if (!sent) co_return grpc::Status::CANCELLED;
    if (piece.data().empty()) break;
  } while (at < info->size);
  co_return grpc::Status::OK;
}

}  // namespace

grpc::ServerUnaryReactor* MessageService::GetMessage(grpc::CallbackServerContext* context,
                                                     const v1::GetMessageRequest* request,
                                                     v1::GetMessageResponse* response) {
  return rpc::Unary(context, gate_, *request, Get(*request, *response));
}

grpc::ServerWriteReactor<v1::DownloadRawResponse>* MessageService::DownloadRaw(grpc::CallbackServerContext* context,
                                                                               const v1::DownloadRawRequest* request) {
  auto stream = std::make_shared<RawStream>(gate_.executor());
  return RawStream::Run(stream, context, gate_, *request, Download(queries_, *request, stream));
}

grpc::ServerUnaryReactor* MessageService::Explain(grpc::CallbackServerContext* context,
                                                  const v1::ExplainRequest* request, v1::ExplainResponse* response) {
  return rpc::Unary(context, gate_, *request, ExplainOne(*request, *response));
}

async::Task<grpc::Status> MessageService::Get(const v1::GetMessageRequest& request, v1::GetMessageResponse& response) {
  std::vector<rpc::Violation> violations;
  const std::string id = IdOf(request.name(), "messages", "name", violations);
  if (!violations.empty()) co_return rpc::InvalidFields(violations);
  absl::StatusOr<LedgerQueries::StoredMessage> found = co_await queries_.GetMessage(id);
  if (!found.ok()) co_return rpc::FromAbsl(found.status());
  *response.mutable_message() = std::move(found->message);
  *response.mutable_outcome() = std::move(found->outcome);
  co_return grpc::Status::OK;
}

async::Task<grpc::Status> MessageService::ExplainOne(const v1::ExplainRequest& request, v1::ExplainResponse& response) {
  std::vector<rpc::Violation> violations;
  const std::string id = IdOf(request.mailbox(), "mailboxes", "mailbox", violations);
  absl::string_view bare = request.message_id();
  absl::ConsumePrefix(&bare, "<");
  absl::ConsumeSuffix(&bare, ">");
  const std::string message_id(bare);
  const bool clean =
      std::none_of(message_id.begin(), message_id.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  if (message_id.empty() || message_id.size() > 998 || !clean) {
    rpc::Violation violation;
    violation.field = "message_id";
    violation.description = "must have 1 to 998 bytes and no control characters";
    violations.push_back(std::move(violation));
  }
  if (!violations.empty()) co_return rpc::InvalidFields(violations);
  MailboxRef mailbox = catalog_.Find(id);
  if (mailbox == nullptr) {
    co_return rpc::Error(grpc::StatusCode::NOT_FOUND, "MAILBOX_NOT_FOUND",
                         absl::StrCat("there is no mailbox ", request.mailbox()), {{"mailbox", request.mailbox()}});
  }
  auto known = co_await queries_.OutcomesOf(FolderKeyOf(*mailbox).mailbox, message_id);
  if (!known.ok()) co_return rpc::FromAbsl(known.status());
  for (v1::Outcome& outcome : *known) *response.add_outcomes() = std::move(outcome);
  absl::Status asked = co_await AskServer(*mailbox, message_id, response);
  response.set_server_note(asked.ok()
                               ? "The mail server was asked too."
                               : absl::StrCat("The mail server could not be asked: ", std::string(asked.message())));
  co_return grpc::Status::OK;
}

async::Task<absl::Status> MessageService::AskServer(const config::v1::Mailbox& mailbox, const std::string& message_id,
                                                    v1::ExplainResponse& response) {
  PS_CO_ASSIGN_OR_RETURN(OpenFolder open, co_await ConnectTo(fetch_, mailbox));
  PS_CO_ASSIGN_OR_RETURN(std::vector<uint32_t> uids, co_await open.client->SearchMessageId(message_id));
  (co_await open.client->Logout()).IgnoreError();  // everything was read; nothing is lost with the farewell
  const FolderKey folder = FolderKeyOf(mailbox);
  for (uint32_t uid : uids) {
    auto told = [&](const v1::Outcome& o) {
      return o.server_identity().uid() == uid && o.server_identity().uid_validity() == open.state.uid_validity;
    };
    if (std::any_of(response.outcomes().begin(), response.outcomes().end(), told)) continue;
    PS_CO_ASSIGN_OR_RETURN(std::optional<v1::Outcome> row,
                           co_await queries_.OutcomeOf(folder, open.state.uid_validity, uid));
    v1::Outcome& outcome = *response.add_outcomes();
    if (row) {
      outcome = *std::move(row);
      continue;
    }
    outcome.set_kind(v1::Outcome::KIND_NOT_LISTED);
    outcome.set_reason("It is on the server and was not listed yet; the next poll decides.");
    outcome.set_mailbox(mailbox.name());
    outcome.mutable_server_identity()->set_connection_generation(folder.generation);
    outcome.mutable_server_identity()->set_folder(folder.folder);
    outcome.mutable_server_identity()->set_uid_validity(open.state.uid_validity);
    outcome.mutable_server_identity()->set_uid(uid);
  }
  co_return absl::OkStatus();
}

}  // namespace poststelle::fetcher
