// One pass over one mailbox and its folders: list, commit the decisions, fetch, parse, commit the publication. The
// whole story.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "libs/async/runtime.h"
#include "libs/blob/blob_store.h"
#include "libs/imap/client.h"
#include "libs/net/dialer.h"
#include "libs/parsing/parser_pool.h"
#include "libs/sql/database.h"
#include "services/fetcher/committer.h"
#include "services/fetcher/fetcher_metrics.h"
#include "services/fetcher/mailbox_catalog.h"
#include "services/fetcher/status_board.h"

namespace poststelle::fetcher {

// What every run shares; owned by main, outlives every run.
struct FetchContext {
  asio::any_io_executor executor;
  net::Dialer& dialer;
  sql::Database& database;
  Committer& committer;
  parsing::ParserPool& parser;
  blob::Store& raw;
  async::Budget& memory;  // bytes of raw mail in hand, over all runs
  CredentialSource& credentials;
  StatusBoard& board;
  FetcherMetrics& metrics;
  uint64_t max_message_size = 64 << 20;
  absl::Duration connect_timeout = absl::Seconds(15);
  absl::Duration command_timeout = absl::Seconds(60);
  std::shared_ptr<imap::KnownServers> known_servers = std::make_shared<imap::KnownServers>();
};

// What a run that went well found.
struct FetchReport {
  int listed = 0;      // UIDs decided
  int published = 0;   // includes duplicates
  bool acted = false;  // something was changed on the server
  std::string notice;  // for the mailbox's status
  // What is wrong with one or more of several folders, whose names it tells; the others were polled.
  absl::Status folder_failure;
};

// Runs one poll. `hold` is the worker's claim (its cursor and fence are kept up to date); `stop` is set when the lease
// was lost or the mailbox changed, and ends the run between two steps. Errors are the statuses that Classify()
// explains.
async::Task<absl::StatusOr<FetchReport>> RunFetch(FetchContext& context, MailboxRef mailbox, Hold& hold,
                                                  const std::atomic<bool>& stop);

// A session on the mailbox.
struct OpenMailbox {
  std::unique_ptr<imap::Client> client;
  std::vector<absl::StatusOr<imap::FolderState>> states;  // of FoldersOf(), in its order, as of the sign-in
  std::string standing_in;                                // the folder that is open read-only; empty: none
  // Opens `folder` read-only, unless it is; then its state is `known`.
  async::Task<absl::StatusOr<imap::FolderState>> Enter(std::string folder, imap::FolderState known);
};
// The reason of a folder whose messages can't be told apart over time.
inline constexpr char kNoUidValidity[] = "PROTOCOL_ERROR";

// Connects, signs in and looks into every folder of the mailbox, in one packet where the server is known. A folder that
// can't be opened is told by its state. For RunFetch and for Explain.
async::Task<absl::StatusOr<OpenMailbox>> ConnectTo(FetchContext& context, const config::v1::Mailbox& mailbox);

}  // namespace poststelle::fetcher
