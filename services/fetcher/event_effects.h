// What an event does to its ticket: status (C4, C6), labels (C7) and the mailbox that answers (C3).
#pragma once

#include "poststelle/config/v1/mailbox.pb.h"
#include "poststelle/fetcher/v1/message.pb.h"
#include "services/fetcher/ledger.h"

namespace poststelle::fetcher {

// The effects of publishing `message` by these options, both ways: only the transaction knows whether it opens a ticket
// or joins one. They are stored with the event, so that a replay tells the same whatever the options are by then. A
// mail that is published at a later try takes them from the options of that try.
//
// A reply leaves the ticket's status alone (C6) if it was in the folder when that was first listed, or if a machine
// wrote it.
EventEffects EffectsOf(const config::v1::ImportOptions& options, const v1::Message& message);

}  // namespace poststelle::fetcher
