#include "services/config/mailbox_service.h"

#include <charconv>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "libs/base/ids.h"
#include "libs/base/page_budget.h"
#include "libs/base/status_macros.h"
#include "libs/rpc/page_token.h"
#include "libs/rpc/server_stream.h"
#include "libs/rpc/unary.h"
#include "services/config/mailbox_merge.h"
#include "services/config/mailbox_validator.h"

namespace poststelle::config {
namespace {

using WatchStream = rpc::StreamOut<v1::WatchMailboxesResponse>;

constexpr absl::Duration kLook = absl::Milliseconds(50);
constexpr absl::Duration kHeartbeat = absl::Seconds(20);
constexpr std::string_view kRequestHash = "create request";

std::string Prefixed(const std::string& id) { return "mailboxes/" + id; }

rpc::Violation Wrong(const std::string& field, const std::string& description) {
  rpc::Violation violation;
  violation.field = field;
  violation.description = description;
  return violation;
}

// The id of a resource name; empty if it is none.
std::string IdOf(const std::string& name) {
  const std::string id = absl::StartsWith(name, "mailboxes/") ? name.substr(10) : "";
  return IsMailboxId(id) ? id : "";
}

grpc::Status BadName(const std::string& field) {
  return rpc::InvalidFields(
      {Wrong(field, "must be mailboxes/{mailbox}, with 4 to 63 characters of a-z, 0-9 and hyphen")});
}

// "epoch.revision"
std::string Token(const std::string& epoch, int64_t revision) { return absl::StrCat(epoch, ".", revision); }

absl::StatusOr<int64_t> ParseToken(const std::string& epoch, const std::string& token) {
  const size_t dot = token.rfind('.');
  int64_t revision = -1;
  if (dot != std::string::npos) std::from_chars(token.data() + dot + 1, token.data() + token.size(), revision);
  if (revision < 0) return absl::InvalidArgumentError("resume_token: not a token of this service");
  if (token.substr(0, dot) != epoch)
    return absl::OutOfRangeError("the token is of another database; watch without a token");
  return revision;
}

// One watcher. Reads the log of changes; nothing is kept in memory for it, so a slow one costs nobody anything.
async::Task<grpc::Status> Watch(MailboxStore& store, const std::string& epoch, std::string resume_token,
                                std::shared_ptr<WatchStream> stream, const std::atomic<bool>& draining) {
  int64_t revision = 0;
  v1::WatchMailboxesResponse step;
  if (resume_token.empty()) {
    absl::StatusOr<MailboxStore::Snapshot> snapshot = co_await store.ReadSnapshot();
    if (!snapshot.ok()) co_return rpc::FromAbsl(snapshot.status());
    revision = snapshot->revision;
    for (v1::Mailbox& mailbox : snapshot->mailboxes) {
      *step.mutable_upserted() = std::move(mailbox);
      const bool sent = co_await stream->Write(step);
      if (!sent) co_return grpc::Status::CANCELLED;
    }
  } else {
    absl::StatusOr<int64_t> parsed = ParseToken(epoch, resume_token);
    if (absl::IsOutOfRange(parsed.status())) {
      co_return rpc::Error(grpc::StatusCode::OUT_OF_RANGE, "REVISION_COMPACTED",
                           std::string(parsed.status().message()));
    }
    if (!parsed.ok()) co_return rpc::InvalidFields({Wrong("resume_token", "not a token of this service")});
    revision = *parsed;
  }
  bool caught_up = false;
  absl::Time spoken = absl::InfinitePast();
  while (true) {
    absl::StatusOr<std::vector<Change>> changes = co_await store.ReadChanges(revision);
    if (!changes.ok()) co_return rpc::FromAbsl(changes.status());
    for (Change& change : *changes) {
      revision = change.revision;
      if (change.mailbox) {
        *step.mutable_upserted() = *std::move(change.mailbox);
      } else {
        step.set_deleted(Prefixed(change.mailbox_id));
      }
      step.set_resume_token(Token(epoch, revision));
      const bool sent = co_await stream->Write(step);
      if (!sent) co_return grpc::Status::CANCELLED;
    }
    if (!changes->empty()) continue;
    if (!caught_up || absl::Now() - spoken > kHeartbeat) {
      step.mutable_synced();
      step.set_resume_token(Token(epoch, revision));
      const bool sent = co_await stream->Write(step);
      if (!sent) co_return grpc::Status::CANCELLED;
      spoken = absl::Now();
      caught_up = true;
    }
    const bool gone = co_await stream->WaitOrCancelled(kLook);
    if (gone) co_return grpc::Status::CANCELLED;
    if (draining) co_return rpc::Error(grpc::StatusCode::UNAVAILABLE, "DRAINING", "the service is shutting down");
  }
}

}  // namespace

std::string PasswordRecord(const std::string& mailbox_id) {
  return absl::StrCat("mailboxes/", mailbox_id, "/password");
}

grpc::ServerUnaryReactor* MailboxService::CreateMailbox(grpc::CallbackServerContext* context,
                                                        const v1::CreateMailboxRequest* request,
                                                        v1::CreateMailboxResponse* response) {
  return rpc::Unary(context, gate_, *request, Create(*request, *response));
}
grpc::ServerUnaryReactor* MailboxService::GetMailbox(grpc::CallbackServerContext* context,
                                                     const v1::GetMailboxRequest* request,
                                                     v1::GetMailboxResponse* response) {
  return rpc::Unary(context, gate_, *request, Get(*request, *response));
}
grpc::ServerUnaryReactor* MailboxService::ListMailboxes(grpc::CallbackServerContext* context,
                                                        const v1::ListMailboxesRequest* request,
                                                        v1::ListMailboxesResponse* response) {
  return rpc::Unary(context, gate_, *request, List(*request, *response));
}
grpc::ServerUnaryReactor* MailboxService::UpdateMailbox(grpc::CallbackServerContext* context,
                                                        const v1::UpdateMailboxRequest* request,
                                                        v1::UpdateMailboxResponse* response) {
  return rpc::Unary(context, gate_, *request, Update(*request, *response));
}
grpc::ServerUnaryReactor* MailboxService::DeleteMailbox(grpc::CallbackServerContext* context,
                                                        const v1::DeleteMailboxRequest* request,
                                                        google::protobuf::Empty*) {
  return rpc::Unary(context, gate_, *request, Delete(*request));
}
grpc::ServerWriteReactor<v1::WatchMailboxesResponse>* MailboxService::WatchMailboxes(
    grpc::CallbackServerContext* context, const v1::WatchMailboxesRequest* request) {
  auto stream = std::make_shared<WatchStream>(gate_.executor());
  return WatchStream::Run(stream, context, gate_, *request,
                          Watch(store_, epoch_, request->resume_token(), stream, draining_));
}

absl::StatusOr<StoredMailbox> MailboxService::Seal(v1::Mailbox mailbox) const {
  StoredMailbox out;
  const std::string& password = mailbox.password_authentication().password();
  if (!password.empty()) {
    PS_ASSIGN_OR_RETURN(out.sealed_password, vault_.Seal(SecretString(password), PasswordRecord(IdOf(mailbox.name()))));
  }
  if (mailbox.has_password_authentication()) mailbox.mutable_password_authentication()->clear_password();
  out.mailbox = std::move(mailbox);
  return out;
}

absl::StatusOr<RequestMark> MailboxService::MarkOf(const v1::CreateMailboxRequest& request) const {
  RequestMark mark;
  mark.id = request.request_id();
  if (mark.id.empty()) return mark;
  // Keyed, because a request holds a password: from the database alone nobody can try words against the hash.
  auto bytes = std::make_shared<const SecretString>(request.SerializeAsString());
  PS_ASSIGN_OR_RETURN(mark.hash, vault_.KeyedHash(*bytes, kRequestHash));
  mark.is_same = [this, bytes](const std::string& stored) {
    return vault_.CheckKeyedHash(stored, *bytes, kRequestHash);
  };
  return mark;
}

async::Task<grpc::Status> MailboxService::Create(const v1::CreateMailboxRequest& request,
                                                 v1::CreateMailboxResponse& response) {
  v1::Mailbox mailbox = request.mailbox();
  std::vector<rpc::Violation> violations = CompleteAndValidate(mailbox, min_interval_, true);
  if (!request.mailbox_id().empty() && !IsMailboxId(request.mailbox_id())) {
    violations.push_back(
        Wrong("mailbox_id", "must have 4 to 63 characters of a-z, 0-9 and hyphen and start with a letter"));
  }
  if (request.request_id().size() > 128) violations.push_back(Wrong("request_id", "must have at most 128 characters"));
  if (!violations.empty()) co_return rpc::InvalidFields(violations);
  mailbox.set_name(Prefixed(request.mailbox_id().empty() ? "m" + RandomId() : request.mailbox_id()));
  absl::StatusOr<StoredMailbox> sealed = Seal(std::move(mailbox));
  if (!sealed.ok()) co_return rpc::FromAbsl(sealed.status());
  if (request.validate_only()) {
    *response.mutable_mailbox() = sealed->mailbox;
    co_return grpc::Status::OK;
  }
  absl::StatusOr<RequestMark> mark = MarkOf(request);
  if (!mark.ok()) co_return rpc::FromAbsl(mark.status());
  absl::StatusOr<v1::Mailbox> created = co_await store_.Create(*std::move(sealed), *std::move(mark));
  if (!created.ok()) co_return rpc::FromAbsl(created.status());
  *response.mutable_mailbox() = *std::move(created);
  co_return grpc::Status::OK;
}

async::Task<grpc::Status> MailboxService::Get(const v1::GetMailboxRequest& request, v1::GetMailboxResponse& response) {
  const std::string id = IdOf(request.name());
  if (id.empty()) co_return BadName("name");
  absl::StatusOr<StoredMailbox> found = co_await store_.Get(id);
  if (!found.ok()) co_return rpc::FromAbsl(found.status());
  *response.mutable_mailbox() = std::move(found->mailbox);
  co_return grpc::Status::OK;
}

async::Task<grpc::Status> MailboxService::List(const v1::ListMailboxesRequest& request,
                                               v1::ListMailboxesResponse& response) {
  std::vector<rpc::Violation> violations;
  absl::StatusOr<int> size = rpc::PageSize(request.page_size(), 50, 1000);
  absl::StatusOr<std::string> after = rpc::ReadPageToken(epoch_, "mailboxes", request.page_token());
  if (!size.ok()) violations.push_back(Wrong("page_size", std::string(size.status().message())));
  if (!after.ok()) violations.push_back(Wrong("page_token", std::string(after.status().message())));
  if (!violations.empty()) co_return rpc::InvalidFields(violations);
  absl::StatusOr<std::vector<v1::Mailbox>> found = co_await store_.List(*after, *size + 1);
  if (!found.ok()) co_return rpc::FromAbsl(found.status());
  PageBudget budget;
  for (v1::Mailbox& mailbox : *found) {
    if (response.mailboxes_size() == *size || !budget.Take(mailbox.ByteSizeLong())) {
      const std::string last = NameKey(response.mailboxes(response.mailboxes_size() - 1).display_name());
      response.set_next_page_token(rpc::MakePageToken(epoch_, "mailboxes", last));
      break;
    }
    *response.add_mailboxes() = std::move(mailbox);
  }
  co_return grpc::Status::OK;
}

async::Task<grpc::Status> MailboxService::Update(const v1::UpdateMailboxRequest& request,
                                                 v1::UpdateMailboxResponse& response) {
  const std::string id = IdOf(request.mailbox().name());
  if (id.empty()) co_return BadName("mailbox.name");
  absl::StatusOr<StoredMailbox> stored = co_await store_.Get(id);
  if (!stored.ok()) co_return rpc::FromAbsl(stored.status());
  const std::string etag = request.mailbox().etag().empty() ? stored->mailbox.etag() : request.mailbox().etag();
  v1::Mailbox next = stored->mailbox;
  std::vector<rpc::Violation> violations = Merge(request.mailbox(), request.update_mask(), next);
  if (violations.empty()) violations = CompleteAndValidate(next, min_interval_, false);
  const bool keeps_password = !stored->sealed_password.empty() && next.password_authentication().password().empty();
  if (violations.empty() && keeps_password && SendsPasswordElsewhere(stored->mailbox, next)) {
    violations.push_back(Wrong("mailbox.password_authentication.password",
                               "give the password again: the server it is sent to changes (another host, less "
                               "protection, or another authority to trust)"));
  }
  if (!violations.empty()) co_return rpc::InvalidFields(violations);
  absl::StatusOr<StoredMailbox> sealed = Seal(std::move(next));
  if (!sealed.ok()) co_return rpc::FromAbsl(sealed.status());
  if (request.validate_only()) {
    *response.mutable_mailbox() = sealed->mailbox;
    co_return grpc::Status::OK;
  }
  absl::StatusOr<v1::Mailbox> updated = co_await store_.Update(*std::move(sealed), etag);
  if (!updated.ok()) co_return rpc::FromAbsl(updated.status());
  *response.mutable_mailbox() = *std::move(updated);
  co_return grpc::Status::OK;
}

async::Task<grpc::Status> MailboxService::Delete(const v1::DeleteMailboxRequest& request) {
  const std::string id = IdOf(request.name());
  if (id.empty()) co_return BadName("name");
  co_return rpc::FromAbsl(co_await store_.Delete(id, request.etag()));
}

}  // namespace poststelle::config
