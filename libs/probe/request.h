// What the services that test mailboxes have in common towards config.
#pragma once

#include <string>
#include <vector>

#include "libs/probe/texts.h"
#include "libs/rpc/status.h"
#include "poststelle/config/v1/mailbox.pb.h"

namespace poststelle::probe {

// INVALID_FIELDS for settings that can't be tried, which config does not send; `violations` are those of the request's
// other fields.
grpc::Status CheckMailbox(const config::v1::Mailbox& mailbox, config::v1::Mailbox::Direction direction,
                          std::vector<rpc::Violation> violations = {});

// FAILED_PRECONDITION, reason TEST_FAILED, for a step that failed where it is no answer but an error: its kind, reason
// and texts are in the metadata (step, step_reason, explanation_de, explanation_en, remedy_de, remedy_en,
// server_words).
grpc::Status TestFailed(const Step& step);

}  // namespace poststelle::probe
