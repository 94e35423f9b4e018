#include "services/config/mailbox_probe.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "libs/rpc/access.h"
#include "libs/rpc/status.h"
#include "services/config/mailbox_name.h"
#include "services/config/mailbox_validator.h"
#include "services/config/stored_password.h"

namespace poststelle::config {
namespace {

rpc::Violation Wrong(const std::string& field, const std::string& description) {
  rpc::Violation violation;
  violation.field = field;
  violation.description = description;
  return violation;
}

void SetPassword(const SecretString& password, v1::Mailbox& mailbox) {
  mailbox.mutable_password_authentication()->set_password(std::string(password.Reveal()));
}

bool IsAdmin(const rpc::CallerIdentity& caller) { return rpc::Includes(caller.role, auth::v1::ROLE_ADMIN); }

ServerWords WordsFor(const rpc::CallerIdentity& caller) {
  return IsAdmin(caller) ? ServerWords::kShown : ServerWords::kLeftOut;
}

bool IsRecipient(const std::string& address) {
  const size_t at = address.rfind('@');
  const bool clean =
      address.find_first_of(" <>,\"") == std::string::npos &&
      std::none_of(address.begin(), address.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  return at != std::string::npos && at > 0 && at + 1 < address.size() && address.size() <= 254 && clean;
}

}  // namespace

async::Task<grpc::Status> MailboxProbe::Saved(const std::string& name, v1::Mailbox& out) const {
  const std::string id = MailboxIdIn(name);
  if (id.empty()) co_return rpc::InvalidFields({WrongMailboxName("name")});
  absl::StatusOr<StoredMailbox> found = co_await store_.Get(id);
  if (!found.ok()) co_return rpc::FromAbsl(found.status());
  absl::StatusOr<SecretString> password = co_await OpenPassword(store_, vault_, id, *found);
  if (!password.ok()) co_return rpc::FromAbsl(password.status());
  out = std::move(found->mailbox);
  SetPassword(*password, out);
  co_return grpc::Status::OK;
}

async::Task<grpc::Status> MailboxProbe::Unsaved(const v1::Mailbox& given, v1::Mailbox& out) const {
  out = given;
  StoredMailbox stored;
  std::string id;
  if (!given.name().empty()) {
    id = MailboxIdIn(given.name());
    if (id.empty()) co_return rpc::InvalidFields({WrongMailboxName("mailbox.name")});
    absl::StatusOr<StoredMailbox> found = co_await store_.Get(id);
    if (!found.ok()) co_return rpc::FromAbsl(found.status());
    stored = *std::move(found);
  }
  const v1::Mailbox& before = stored.mailbox;
  if (out.has_password_authentication()) {
    out.mutable_password_authentication()->set_password_set(!stored.sealed_password.empty());
  }
  std::vector<rpc::Violation> violations = CompleteAndValidate(out, min_interval_, Passwords::kRequired);
  const bool from_store = !stored.sealed_password.empty() && out.password_authentication().password().empty();
  if (violations.empty() && from_store && SendsPasswordElsewhere(before, out)) {
    violations.push_back(Wrong("mailbox.password_authentication.password",
                               "give the password: these settings would send the stored one to another server (another "
                               "host, less protection, or another authority or key to trust)"));
  }
  if (!violations.empty()) co_return rpc::InvalidFields(violations);
  // Under these the ledger knows what was imported.
  *out.mutable_create_time() = before.create_time();
  out.set_connection_generation(before.connection_generation() + (ConnectionChanged(before, out) ? 1 : 0));
  out.set_enable_generation(before.enable_generation());
  if (!from_store) co_return grpc::Status::OK;
  absl::StatusOr<SecretString> password = co_await OpenPassword(store_, vault_, id, stored);
  if (!password.ok()) co_return rpc::FromAbsl(password.status());
  SetPassword(*password, out);
  co_return grpc::Status::OK;
}

template <typename Request>
async::Task<grpc::Status> MailboxProbe::Settle(rpc::CallerIdentity caller, const Request& request,
                                               v1::Mailbox& out) const {
  switch (request.target_case()) {
    case Request::kName:
      co_return co_await Saved(request.name(), out);
    case Request::kMailbox:
      if (!IsAdmin(caller)) {
        rpc::MethodRule unsaved = rpc::RuleOf<Request>();
        unsaved.served = {auth::v1::ROLE_ADMIN};
        co_return rpc::RoleInsufficient(caller, unsaved, " with settings that are not saved");
      }
      co_return co_await Unsaved(request.mailbox(), out);
    default:
      co_return rpc::InvalidFields({Wrong("name", "name or mailbox must be given")});
  }
}

async::Task<grpc::Status> MailboxProbe::Test(rpc::CallerIdentity caller, const v1::TestMailboxRequest& request,
                                             std::shared_ptr<TestStream> out) const {
  v1::Mailbox mailbox;
  const grpc::Status settled = co_await Settle(caller, request, mailbox);
  if (!settled.ok()) co_return settled;
  const std::string& recipient = request.test_recipient();
  if (!recipient.empty() && mailbox.direction() != v1::Mailbox::DIRECTION_OUTBOUND) {
    co_return rpc::InvalidFields({Wrong("test_recipient", "is for outbound mailboxes only")});
  }
  if (!recipient.empty() && !IsRecipient(recipient)) {
    co_return rpc::InvalidFields({Wrong("test_recipient", "must be a mail address, at most 254 bytes")});
  }
  co_return co_await clients_.Test(mailbox, recipient, WordsFor(caller), *out);
}

async::Task<grpc::Status> MailboxProbe::Preview(rpc::CallerIdentity caller, const v1::PreviewMailboxRequest& request,
                                                v1::PreviewMailboxResponse& response) const {
  v1::Mailbox mailbox;
  const grpc::Status settled = co_await Settle(caller, request, mailbox);
  if (!settled.ok()) co_return settled;
  if (mailbox.direction() != v1::Mailbox::DIRECTION_INBOUND) {
    const char* field = request.has_name() ? "name" : "mailbox.direction";
    co_return rpc::InvalidFields({Wrong(field, "must be an inbound mailbox: nothing is imported through another")});
  }
  co_return co_await clients_.Preview(mailbox, WordsFor(caller), response);
}

}  // namespace poststelle::config
