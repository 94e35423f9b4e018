// MailboxService over gRPC: translates between requests and the store.
#pragma once

#include <atomic>
#include <string>

#include "absl/time/time.h"
#include "libs/rpc/gate.h"
#include "libs/secrets/vault.h"
#include "poststelle/config/v1/mailbox_service.grpc.pb.h"
#include "services/config/fetcher_client.h"
#include "services/config/mailbox_probe.h"
#include "services/config/mailbox_store.h"
#include "services/config/mailbox_watch.h"

namespace poststelle::config {

// Identity under which a mailbox's password is sealed.
std::string PasswordRecord(const std::string& mailbox_id);

class MailboxService : public v1::MailboxService::CallbackService {
 public:
  // `epoch` is read by calls only.
  MailboxService(const rpc::Gate& gate, MailboxStore& store, ChangeHub& hub, const secrets::Vault& vault,
                 const std::string& epoch, absl::Duration min_interval, const std::atomic<bool>& draining,
                 ServerLookup& lookup, const MailboxProbe& probe)
      : gate_(gate),
        store_(store),
        hub_(hub),
        vault_(vault),
        epoch_(epoch),
        min_interval_(min_interval),
        draining_(draining),
        lookup_(lookup),
        probe_(probe) {}

  grpc::ServerUnaryReactor* CreateMailbox(grpc::CallbackServerContext* context, const v1::CreateMailboxRequest* request,
                                          v1::CreateMailboxResponse* response) override;
  grpc::ServerUnaryReactor* GetMailbox(grpc::CallbackServerContext* context, const v1::GetMailboxRequest* request,
                                       v1::GetMailboxResponse* response) override;
  grpc::ServerUnaryReactor* ListMailboxes(grpc::CallbackServerContext* context, const v1::ListMailboxesRequest* request,
                                          v1::ListMailboxesResponse* response) override;
  grpc::ServerUnaryReactor* UpdateMailbox(grpc::CallbackServerContext* context, const v1::UpdateMailboxRequest* request,
                                          v1::UpdateMailboxResponse* response) override;
  grpc::ServerUnaryReactor* DeleteMailbox(grpc::CallbackServerContext* context, const v1::DeleteMailboxRequest* request,
                                          google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* DuplicateMailbox(grpc::CallbackServerContext* context,
                                             const v1::DuplicateMailboxRequest* request,
                                             v1::DuplicateMailboxResponse* response) override;
  grpc::ServerUnaryReactor* SuggestSettings(grpc::CallbackServerContext* context,
                                            const v1::SuggestSettingsRequest* request,
                                            v1::SuggestSettingsResponse* response) override;
  grpc::ServerWriteReactor<v1::TestMailboxResponse>* TestMailbox(grpc::CallbackServerContext* context,
                                                                 const v1::TestMailboxRequest* request) override;
  grpc::ServerUnaryReactor* PreviewMailbox(grpc::CallbackServerContext* context,
                                           const v1::PreviewMailboxRequest* request,
                                           v1::PreviewMailboxResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchMailboxesResponse>* WatchMailboxes(
      grpc::CallbackServerContext* context, const v1::WatchMailboxesRequest* request) override;

 private:
  async::Task<grpc::Status> Create(const v1::CreateMailboxRequest& request, v1::CreateMailboxResponse& response);
  async::Task<grpc::Status> Get(const v1::GetMailboxRequest& request, v1::GetMailboxResponse& response);
  async::Task<grpc::Status> List(const v1::ListMailboxesRequest& request, v1::ListMailboxesResponse& response);
  async::Task<grpc::Status> Update(const v1::UpdateMailboxRequest& request, v1::UpdateMailboxResponse& response);
  async::Task<grpc::Status> Delete(const v1::DeleteMailboxRequest& request);
  async::Task<grpc::Status> Duplicate(const v1::DuplicateMailboxRequest& request,
                                      v1::DuplicateMailboxResponse& response);
  // Creates what `allow_missing` found missing.
  async::Task<grpc::Status> CreateMissing(const v1::UpdateMailboxRequest& request, const std::string& id,
                                          v1::UpdateMailboxResponse& response);
  // Takes the password out of the mailbox and seals it.
  absl::StatusOr<StoredMailbox> Seal(v1::Mailbox mailbox) const;
  // The password of `source`, sealed for `target`.
  absl::StatusOr<std::string> Reseal(const StoredMailbox& source, const v1::Mailbox& target) const;
  // Whether the password that `next` gives is the one that is stored.
  bool IsStoredPassword(const StoredMailbox& stored, const v1::Mailbox& next) const;
  absl::StatusOr<RequestMark> MarkOf(const std::string& request_id, const google::protobuf::MessageLite& request) const;

  const rpc::Gate& gate_;
  MailboxStore& store_;
  ChangeHub& hub_;
  const secrets::Vault& vault_;
  const std::string& epoch_;
  const absl::Duration min_interval_;
  const std::atomic<bool>& draining_;
  ServerLookup& lookup_;
  const MailboxProbe& probe_;
};

}  // namespace poststelle::config
