// From a decoded mail to the message of the API.
#pragma once

#include "libs/mail/parsed_mail.pb.h"
#include "poststelle/fetcher/v1/message.pb.h"
#include "services/fetcher/ledger.h"

namespace poststelle::fetcher {

// Text and HTML beyond this are cut (the raw mail has the rest).
inline constexpr size_t kMaxTextBytes = 1 << 20;

// Fills everything but what only the ledger knows.
v1::Message MessageFrom(const mail::ParsedMail& parsed, const FolderKey& folder, uint32_t uid_validity,
                        const PendingMessage& listed);

}  // namespace poststelle::fetcher
