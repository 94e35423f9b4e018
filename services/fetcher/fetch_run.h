// One pass over one mailbox: list, commit the decisions, fetch, parse, commit the publication. The whole story.
#pragma once

#include <atomic>
#include <memory>
#include <string>

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
  std::string notice;  // for the mailbox's status
};

// Runs one poll. `hold` is the worker's claim (its cursor and fence are kept up to date); `stop` is set when the lease
// was lost or the mailbox changed, and ends the run between two steps. Errors are the statuses that Classify()
// explains.
async::Task<absl::StatusOr<FetchReport>> RunFetch(FetchContext& context, MailboxRef mailbox, Hold& hold,
                                                  const std::atomic<bool>& stop);

// Connects, signs in and opens the folder read-only. For RunFetch and for Explain.
struct OpenFolder {
  std::unique_ptr<imap::Client> client;
  imap::FolderState state;
};
async::Task<absl::StatusOr<OpenFolder>> ConnectTo(FetchContext& context, const config::v1::Mailbox& mailbox);

}  // namespace poststelle::fetcher
