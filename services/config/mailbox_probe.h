// TestMailbox and PreviewMailbox: settings that are checked and complete, and the service that tries them.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "libs/rpc/identity.h"
#include "libs/secrets/vault.h"
#include "services/config/mailbox_store.h"
#include "services/config/probe_clients.h"

namespace poststelle::config {

// Whoever may try a saved mailbox learns how it fares; whoever may try settings of their own chooses where this
// installation connects to, so only an admin may. Thread-safe.
class MailboxProbe {
 public:
  MailboxProbe(MailboxStore& store, const secrets::Vault& vault, absl::Duration min_interval, ProbeClients& clients)
      : store_(store), vault_(vault), min_interval_(min_interval), clients_(clients) {}

  async::Task<grpc::Status> Test(rpc::CallerIdentity caller, const v1::TestMailboxRequest& request,
                                 std::shared_ptr<TestStream> out) const;
  async::Task<grpc::Status> Preview(rpc::CallerIdentity caller, const v1::PreviewMailboxRequest& request,
                                    v1::PreviewMailboxResponse& response) const;

 private:
  // The settings that `request` means, with the password.
  template <typename Request>
  async::Task<grpc::Status> Settle(rpc::CallerIdentity caller, const Request& request, v1::Mailbox& out) const;
  async::Task<grpc::Status> Saved(const std::string& name, v1::Mailbox& out) const;
  async::Task<grpc::Status> Unsaved(const v1::Mailbox& given, v1::Mailbox& out) const;

  MailboxStore& store_;
  const secrets::Vault& vault_;
  const absl::Duration min_interval_;
  ProbeClients& clients_;
};

}  // namespace poststelle::config
