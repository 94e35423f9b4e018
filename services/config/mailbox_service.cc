#include "services/config/mailbox_service.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "libs/base/ids.h"
#include "libs/base/page_budget.h"
#include "libs/base/status_macros.h"
#include "libs/rpc/page_token.h"
#include "libs/rpc/unary.h"
#include "services/config/duplicate.h"
#include "services/config/field_paths.h"
#include "services/config/mailbox_merge.h"
#include "services/config/mailbox_name.h"
#include "services/config/mailbox_selection.h"
#include "services/config/mailbox_validator.h"
#include "services/config/provider_table.h"
#include "services/config/suggest.h"
#include "services/config/warnings.h"

namespace poststelle::config {
namespace {

constexpr std::string_view kRequestHash = "create request";

std::string Prefixed(const std::string& id) { return "mailboxes/" + id; }

rpc::Violation Wrong(const std::string& field, const std::string& description) {
  rpc::Violation violation;
  violation.field = field;
  violation.description = description;
  return violation;
}

grpc::Status BadName(const std::string& field) { return rpc::InvalidFields({WrongMailboxName(field)}); }

grpc::Status CheckNew(const std::string& mailbox_id, const std::string& request_id,
                      std::vector<rpc::Violation> violations) {
  if (!mailbox_id.empty() && !IsMailboxId(mailbox_id)) {
    violations.push_back(
        Wrong("mailbox_id", "must have 4 to 63 characters of a-z, 0-9 and hyphen and start with a letter"));
  }
  CheckRequestId(request_id, violations);
  return violations.empty() ? grpc::Status::OK : rpc::InvalidFields(violations);
}

// A bad field of a copy, by its path in the request that made it.
rpc::Violation OfDuplicate(rpc::Violation violation) {
  const std::string field(absl::StripPrefix(violation.field, "mailbox."));
  violation.field = field == "display_name" ? field : absl::StrCat("overrides.", field);
  return violation;
}

// What only the service says of a mailbox.
void ClearOutput(v1::Mailbox& mailbox) {
  mailbox.clear_warnings();
  mailbox.clear_create_time();
  mailbox.clear_update_time();
  if (mailbox.has_password_authentication()) mailbox.mutable_password_authentication()->set_password_set(false);
}

// A mailbox as it is answered.
void Answer(v1::Mailbox mailbox, v1::Mailbox& out) {
  out = std::move(mailbox);
  AddWarnings(out);
}

Commit CommitOf(bool validate_only) { return validate_only ? Commit::kDryRun : Commit::kYes; }

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
                          Watch(store_, hub_, epoch_, request->resume_token(), stream, draining_));
}
grpc::ServerUnaryReactor* MailboxService::DuplicateMailbox(grpc::CallbackServerContext* context,
                                                           const v1::DuplicateMailboxRequest* request,
                                                           v1::DuplicateMailboxResponse* response) {
  return rpc::Unary(context, gate_, *request, Duplicate(*request, *response));
}

grpc::ServerUnaryReactor* MailboxService::SuggestSettings(grpc::CallbackServerContext* context,
                                                          const v1::SuggestSettingsRequest* request,
                                                          v1::SuggestSettingsResponse* response) {
  return rpc::Unary(context, gate_, *request, Suggest(lookup_, *request, *response));
}
grpc::ServerWriteReactor<v1::TestMailboxResponse>* MailboxService::TestMailbox(grpc::CallbackServerContext* context,
                                                                               const v1::TestMailboxRequest* request) {
  auto stream = std::make_shared<TestStream>(gate_.executor());
  return TestStream::Run(stream, context, gate_, *request, probe_.Test(gate_.CallerOf(*context), *request, stream));
}
grpc::ServerUnaryReactor* MailboxService::PreviewMailbox(grpc::CallbackServerContext* context,
                                                         const v1::PreviewMailboxRequest* request,
                                                         v1::PreviewMailboxResponse* response) {
  return rpc::Unary(context, gate_, *request, probe_.Preview(gate_.CallerOf(*context), *request, *response));
}

absl::StatusOr<StoredMailbox> MailboxService::Seal(v1::Mailbox mailbox) const {
  StoredMailbox out;
  const std::string& password = mailbox.password_authentication().password();
  if (!password.empty()) {
    PS_ASSIGN_OR_RETURN(out.sealed_password,
                        vault_.Seal(SecretString(password), PasswordRecord(MailboxIdIn(mailbox.name()))));
  }
  if (mailbox.has_password_authentication()) mailbox.mutable_password_authentication()->clear_password();
  out.mailbox = std::move(mailbox);
  return out;
}

absl::StatusOr<std::string> MailboxService::Reseal(const StoredMailbox& source, const v1::Mailbox& target) const {
  PS_ASSIGN_OR_RETURN(SecretString password, vault_.Open(source.sealed_password, PasswordRecord(IdOf(source.mailbox))));
  return vault_.Seal(password, PasswordRecord(IdOf(target)));
}

bool MailboxService::IsStoredPassword(const StoredMailbox& stored, const v1::Mailbox& next) const {
  const std::string& given = next.password_authentication().password();
  if (given.empty() || stored.sealed_password.empty()) return false;
  absl::StatusOr<SecretString> kept = vault_.Open(stored.sealed_password, PasswordRecord(IdOf(stored.mailbox)));
  return kept.ok() && kept->Reveal() == given;
}

absl::StatusOr<RequestMark> MailboxService::MarkOf(const std::string& request_id,
                                                   const google::protobuf::MessageLite& request) const {
  RequestMark mark;
  mark.id = request_id;
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
  ClearOutput(mailbox);
  const std::string id = request.mailbox_id().empty() ? "m" + RandomId() : request.mailbox_id();
  mailbox.set_name(Prefixed(id));
  std::vector<rpc::Violation> violations = CompleteAndValidate(mailbox, min_interval_, Passwords::kRequired);
  grpc::Status good = CheckNew(request.mailbox_id(), request.request_id(), std::move(violations));
  if (!good.ok()) co_return good;
  absl::StatusOr<StoredMailbox> sealed = Seal(std::move(mailbox));
  if (!sealed.ok()) co_return rpc::FromAbsl(sealed.status());
  absl::StatusOr<RequestMark> mark = MarkOf(request.request_id(), request);
  if (!mark.ok()) co_return rpc::FromAbsl(mark.status());
  absl::StatusOr<v1::Mailbox> created =
      co_await store_.Create(*std::move(sealed), *std::move(mark), CommitOf(request.validate_only()));
  if (!created.ok()) co_return rpc::FromAbsl(created.status());
  Answer(*std::move(created), *response.mutable_mailbox());
  co_return grpc::Status::OK;
}

async::Task<grpc::Status> MailboxService::Get(const v1::GetMailboxRequest& request, v1::GetMailboxResponse& response) {
  const std::string id = MailboxIdIn(request.name());
  if (id.empty()) co_return BadName("name");
  absl::StatusOr<StoredMailbox> found = co_await store_.Get(id);
  if (!found.ok()) co_return rpc::FromAbsl(found.status());
  Answer(std::move(found->mailbox), *response.mutable_mailbox());
  co_return grpc::Status::OK;
}

async::Task<grpc::Status> MailboxService::List(const v1::ListMailboxesRequest& request,
                                               v1::ListMailboxesResponse& response) {
  std::vector<rpc::Violation> violations;
  const MailboxSelection selection = SelectionOf(request, violations);
  const std::string arguments = ArgumentsOf(request);
  absl::StatusOr<int> size = rpc::PageSize(request.page_size(), 50, 1000);
  absl::StatusOr<std::string> after = rpc::ReadPageToken(epoch_, arguments, request.page_token());
  if (!size.ok()) violations.push_back(Wrong("page_size", std::string(size.status().message())));
  if (!after.ok()) violations.push_back(Wrong("page_token", std::string(after.status().message())));
  if (!violations.empty()) co_return rpc::InvalidFields(violations);
  absl::StatusOr<std::vector<v1::Mailbox>> found = co_await store_.List(selection, *after, *size + 1);
  if (!found.ok()) co_return rpc::FromAbsl(found.status());
  PageBudget budget;
  for (v1::Mailbox& mailbox : *found) {
    AddWarnings(mailbox);
    if (response.mailboxes_size() == *size || !budget.Take(mailbox.ByteSizeLong())) {
      const v1::Mailbox& last = response.mailboxes(response.mailboxes_size() - 1);
      response.set_next_page_token(rpc::MakePageToken(epoch_, arguments, PositionOf(last, selection)));
      break;
    }
    *response.add_mailboxes() = std::move(mailbox);
  }
  co_return grpc::Status::OK;
}

async::Task<grpc::Status> MailboxService::CreateMissing(const v1::UpdateMailboxRequest& request, const std::string& id,
                                                        v1::UpdateMailboxResponse& response) {
  v1::CreateMailboxRequest create;
  *create.mutable_mailbox() = request.mailbox();
  create.set_mailbox_id(id);
  create.set_validate_only(request.validate_only());
  v1::CreateMailboxResponse created;
  grpc::Status status = co_await Create(create, created);
  *response.mutable_mailbox() = std::move(*created.mutable_mailbox());
  co_return status;
}

async::Task<grpc::Status> MailboxService::Update(const v1::UpdateMailboxRequest& request,
                                                 v1::UpdateMailboxResponse& response) {
  const std::string id = MailboxIdIn(request.mailbox().name());
  if (id.empty()) {
    std::vector<rpc::Violation> violations = {WrongMailboxName("mailbox.name")};
    KnownPaths<v1::Mailbox>(request.update_mask(), "update_mask", violations);
    co_return rpc::InvalidFields(violations);
  }
  absl::StatusOr<StoredMailbox> stored = co_await store_.Get(id);
  if (absl::IsNotFound(stored.status()) && request.allow_missing())
    co_return co_await CreateMissing(request, id, response);
  if (!stored.ok()) co_return rpc::FromAbsl(stored.status());
  const std::string etag = request.mailbox().etag().empty() ? stored->mailbox.etag() : request.mailbox().etag();
  v1::Mailbox next = stored->mailbox;
  std::vector<rpc::Violation> violations = Merge(request.mailbox(), request.update_mask(), next);
  if (next.has_password_authentication()) {
    next.mutable_password_authentication()->set_password_set(!stored->sealed_password.empty());
  }
  for (rpc::Violation& v : CompleteAndValidate(next, min_interval_, Passwords::kWhenEnabled)) {
    violations.push_back(std::move(v));
  }
  const bool keeps_password = !stored->sealed_password.empty() && next.password_authentication().password().empty();
  if (keeps_password && SendsPasswordElsewhere(stored->mailbox, next)) {
    violations.push_back(Wrong("mailbox.password_authentication.password",
                               "give the password again: the server it is sent to changes (another host, less "
                               "protection, or another authority or key to trust)"));
  }
  if (!violations.empty()) co_return rpc::InvalidFields(violations);
  if (IsStoredPassword(*stored, next)) next.mutable_password_authentication()->clear_password();  // no change
  absl::StatusOr<StoredMailbox> sealed = Seal(std::move(next));
  if (!sealed.ok()) co_return rpc::FromAbsl(sealed.status());
  absl::StatusOr<v1::Mailbox> updated =
      co_await store_.Update(*std::move(sealed), etag, CommitOf(request.validate_only()));
  if (!updated.ok()) co_return rpc::FromAbsl(updated.status());
  Answer(*std::move(updated), *response.mutable_mailbox());
  co_return grpc::Status::OK;
}

async::Task<grpc::Status> MailboxService::Delete(const v1::DeleteMailboxRequest& request) {
  const std::string id = MailboxIdIn(request.name());
  if (id.empty()) co_return BadName("name");
  absl::Status deleted =
      co_await store_.Delete(id, request.etag(), request.clear_references(), CommitOf(request.validate_only()));
  co_return rpc::FromAbsl(deleted);
}

async::Task<grpc::Status> MailboxService::Duplicate(const v1::DuplicateMailboxRequest& request,
                                                    v1::DuplicateMailboxResponse& response) {
  const std::string source_id = MailboxIdIn(request.name());
  if (source_id.empty()) {
    std::vector<rpc::Violation> violations = {WrongMailboxName("name")};
    KnownPaths<v1::Mailbox>(request.override_mask(), "override_mask", violations);
    co_return CheckNew(request.mailbox_id(), request.request_id(), std::move(violations));
  }
  absl::StatusOr<StoredMailbox> source = co_await store_.Get(source_id);
  if (!source.ok()) co_return rpc::FromAbsl(source.status());
  std::vector<rpc::Violation> violations;
  v1::Mailbox mailbox = DuplicateOf(source->mailbox, request, violations);
  ClearOutput(mailbox);
  mailbox.set_name(Prefixed(request.mailbox_id().empty() ? "m" + RandomId() : request.mailbox_id()));
  std::string sealed_password;
  const bool may_go_along = !source->sealed_password.empty() &&
                            !SendsPasswordElsewhere(source->mailbox, mailbox, Elsewhere::kAnotherProvider);
  if (violations.empty() && mailbox.password_authentication().password().empty() && may_go_along) {
    absl::StatusOr<std::string> sealed = Reseal(*source, mailbox);
    // A secret that can't be read is no reason not to copy the rest.
    if (sealed.ok()) sealed_password = *std::move(sealed);
    mailbox.mutable_password_authentication()->set_password_set(!sealed_password.empty());
  }
  for (rpc::Violation& v : CompleteAndValidate(mailbox, min_interval_, Passwords::kWhenEnabled)) {
    violations.push_back(OfDuplicate(std::move(v)));
  }
  grpc::Status good = CheckNew(request.mailbox_id(), request.request_id(), std::move(violations));
  if (!good.ok()) co_return good;
  absl::StatusOr<StoredMailbox> sealed = Seal(std::move(mailbox));
  if (!sealed.ok()) co_return rpc::FromAbsl(sealed.status());
  if (sealed->sealed_password.empty()) sealed->sealed_password = std::move(sealed_password);
  absl::StatusOr<RequestMark> mark = MarkOf(request.request_id(), request);
  if (!mark.ok()) co_return rpc::FromAbsl(mark.status());
  const std::string counterpart_of = request.kind() == v1::DuplicateMailboxRequest::KIND_COUNTERPART ? source_id : "";
  absl::StatusOr<v1::Mailbox> created =
      co_await store_.Create(*std::move(sealed), *std::move(mark), CommitOf(request.validate_only()), counterpart_of);
  if (!created.ok()) co_return rpc::FromAbsl(created.status());
  Answer(*std::move(created), *response.mutable_mailbox());
  co_return grpc::Status::OK;
}

}  // namespace poststelle::config
