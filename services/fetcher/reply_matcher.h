// Which ticket a mail answers (SPEC §5.9): only on proof.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "services/fetcher/ledger.h"

namespace poststelle::fetcher {

// The ticket that `message` joins: one whose Message-ID it names in In-Reply-To or References, nearest first, if its
// sender takes part in that ticket. A known Message-ID from a stranger opens a new ticket.
async::Task<absl::StatusOr<std::optional<std::string>>> FindTicket(sql::Transaction& tx, const std::string& mailbox_key,
                                                                   const v1::Message& message);

// `text` as it is kept in an index: PostgreSQL refuses a row there of more than 2,704 bytes, and a mail may name
// anything. What is longer than 500 bytes is kept by its hash.
std::string IndexKey(const std::string& text);

// Lower-cased addresses of everybody whom `message` makes a participant (From, Reply-To, To, Cc), without repeats; at
// most 200, each as its IndexKey.
std::vector<std::string> ParticipantsOf(const v1::Message& message);

// Message-IDs by which later mail may find the ticket of `message`: its own and those it refers to; at most 100, each
// as its IndexKey.
std::vector<std::string> ReferencesOf(const v1::Message& message);

}  // namespace poststelle::fetcher
