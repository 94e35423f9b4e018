// The publication of messages: digest, thread, ticket, event and outcome, in one transaction.
#pragma once

#include "services/fetcher/ledger.h"

namespace poststelle::fetcher {

// Publishes `publications`, in order, inside a fenced transaction; each unless its row is no longer pending (a replay
// of a lost COMMIT answer):
//   - the same bytes are there already: outcome `duplicate`, raw bytes kept, no event (SPEC §5.4);
//   - it proves to be a reply (reply_matcher.h): joins the ticket, event REPLY_ADDED;
//   - otherwise opens a ticket, event TICKET_OPENED.
// The event takes the next offset of its partition's head row. The number of exchanges with the database does not
// depend on the number of publications, only on the longest chain of mails among them that refer to each other.
async::Task<absl::Status> PublishAll(sql::Transaction& tx, const std::vector<const Publication*>& publications,
                                     const FeedInfo& feed);

// Partition of a ticket: all its events are in one (DESIGN §3).
int PartitionOf(const std::string& ticket_id, int partitions);

}  // namespace poststelle::fetcher
