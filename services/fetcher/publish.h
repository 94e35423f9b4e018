// The publication of one message: digest, thread, ticket, event and outcome, in one transaction.
#pragma once

#include "services/fetcher/ledger.h"

namespace poststelle::fetcher {

// Publishes `p` inside a fenced transaction, unless its row is no longer pending (a replay of a lost COMMIT answer):
//   - the same bytes are there already: outcome `duplicate`, raw bytes kept, no event (SPEC §5.4);
//   - it proves to be a reply (reply_matcher.h): joins the ticket, event REPLY_ADDED;
//   - otherwise opens a ticket, event TICKET_OPENED.
// The event takes the next offset of its partition's head row.
async::Task<absl::Status> Publish(sql::Transaction& tx, const Publication& p, const FeedInfo& feed);

// Partition of a ticket: all its events are in one (DESIGN §3).
int PartitionOf(const std::string& ticket_id, int partitions);

}  // namespace poststelle::fetcher
