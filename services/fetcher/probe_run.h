// Trying an inbound mailbox's settings, and what its first listing would decide. Nothing on the server changes: folders
// are opened with EXAMINE, and no message is fetched.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "libs/imap/client.h"
#include "libs/lease/connection_limits.h"
#include "libs/net/dialer.h"
#include "libs/probe/step_log.h"
#include "libs/sql/database.h"
#include "poststelle/config/v1/mailbox_probe.pb.h"
#include "services/fetcher/ledger.h"

namespace poststelle::fetcher {

// What every probe shares; owned by main.
struct ProbeContext {
  net::Dialer& dialer;
  lease::ConnectionLimits& limits;
  sql::Database& database;
  absl::Duration connect_timeout = absl::Seconds(15);
  absl::Duration command_timeout = absl::Seconds(30);
};

// One session with a mail server. Tells its steps to the log. Lives on the coroutine that uses it.
class ProbeRun {
 public:
  // `mailbox` holds the password.
  ProbeRun(ProbeContext& context, const config::v1::Mailbox& mailbox, probe::StepLog& log)
      : context_(context), mailbox_(mailbox), log_(log) {}

  // Every step. That one failed is told by the log.
  async::Task<void> Test();
  // Connects, and counts folder by folder. An error that the log does not know (the ledger's) carries its reason.
  async::Task<absl::StatusOr<config::v1::PreviewMailboxResponse>> Preview();

 private:
  // False if a step failed, which the log then knows.
  async::Task<bool> Connect();
  async::Task<bool> Open(std::string folder, std::string missing_reason, imap::FolderState& state);
  async::Task<bool> TryFolders();
  async::Task<void> Query(std::string folder);
  async::Task<absl::Status> PreviewFolder(FolderKey key, config::v1::FolderPreview& out);
  void OnStep(imap::ConnectStep step, const net::Stream& stream);
  bool Fail(const absl::Status& status, std::string reason = "");

  ProbeContext& context_;
  const config::v1::Mailbox& mailbox_;
  probe::StepLog& log_;
  lease::ConnectionLimits::Permit permit_;
  std::unique_ptr<imap::Client> client_;
  int64_t messages_ = 0;
};

}  // namespace poststelle::fetcher
