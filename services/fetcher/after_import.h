// What is done on the server with a message once its publication is durable (SPEC §5.8): marked as seen, moved,
// deleted.
//
// A publication's transaction writes that something is due (table after_import), so a crash in between loses nothing:
// the next poll does it, or does it again, which changes nothing more. Only where the server has no MOVE can a
// repetition leave a second copy in the target folder. Duplicates are treated like what they repeat; what was passed
// over, set aside or is too large to be fetched is left alone.
#pragma once

#include <atomic>
#include <string>

#include "absl/status/statusor.h"
#include "poststelle/config/v1/mailbox.pb.h"
#include "services/fetcher/fetch_run.h"

namespace poststelle::fetcher {

// How the ledger names the action of the mailbox: "seen", "move", "delete", or empty where messages are left alone.
std::string ActionOf(const config::v1::Mailbox& mailbox);

// Does what is due. Each batch is counted as a try behind the fence of the mailbox before the server is spoken to, so
// that whoever lost the mailbox does nothing, and is settled behind it afterwards. What the server refuses is tried
// again, later each time, kMaxActionTries times; what only waits for something (a target folder that does not exist, a
// server that is busy) for as long as it takes. What became of it stands in hold.action_notice and, once it was given
// up, beside the message's outcome. An action is done only while the mailbox still asks for it. Returns whether the
// server was spoken to; an error is one of the connection or of the ledger.
inline constexpr int kMaxActionTries = 10;
async::Task<absl::StatusOr<bool>> ActAfterImport(FetchContext& context, const config::v1::Mailbox& mailbox, Hold& hold,
                                                 OpenMailbox& open, const std::atomic<bool>& stop);

}  // namespace poststelle::fetcher
