// Words for what the fetcher tells about events and who wrote a mail.
#pragma once

#include <string>

#include "poststelle/fetcher/v1/ticket.pb.h"

namespace poststelle::cli {

// One line, control characters escaped:
// `opened  tickets/7  erika@example.org  Subject  [status ticketStatuses/new; labels labels/a, labels/b; via
// mailboxes/b]`. The brackets hold only what the event has; a mail that a machine wrote is told there too.
std::string EventLine(const fetcher::v1::TicketEvent& event);

// "automatic reply", "bounce" and the like; empty where a person wrote it.
std::string OriginWords(const fetcher::v1::Message& message);

}  // namespace poststelle::cli
