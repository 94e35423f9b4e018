// Which ticket a mail answers (SPEC §5.9): only on proof.
#pragma once

#include <string>
#include <vector>

#include "services/fetcher/ledger.h"

namespace poststelle::fetcher {

// The lookups of the ticket that `message` joins: one whose Message-ID it names in In-Reply-To or References, nearest
// first, if its sender takes part in that ticket. Each answers with at most one ticket id; the first answer counts. A
// known Message-ID from a stranger finds none: it opens a new ticket.
std::vector<sql::Statement> TicketLookups(const std::string& mailbox_key, const v1::Message& message);

// Lower-cased addresses of everybody whom `message` makes a participant (From, Reply-To, To, Cc), without repeats; at
// most 200.
std::vector<std::string> ParticipantsOf(const v1::Message& message);

// Message-IDs by which later mail may find the ticket of `message`: its own and those it refers to; at most 100.
std::vector<std::string> ReferencesOf(const v1::Message& message);

}  // namespace poststelle::fetcher
