// From a decoded mail to the message of the API.
#pragma once

#include "libs/mail/parsed_mail.pb.h"
#include "poststelle/fetcher/v1/message.pb.h"
#include "services/fetcher/ledger.h"

namespace poststelle::fetcher {

// Text and HTML beyond this are cut (the raw mail has the rest).
inline constexpr size_t kMaxTextBytes = 1 << 20;

// Everything but text and HTML is together not larger than this, so that a message always fits into an answer of gRPC
// (4 MiB): fields are cut, and what no longer fits is left out with a note. No honest mail comes near.
inline constexpr size_t kMaxOtherBytes = 3 << 19;
// Of a subject; a name beside an address, or an address (a longer one is none); a Message-ID; a media type or
// Content-ID.
inline constexpr size_t kMaxSubjectBytes = 4096;
inline constexpr size_t kMaxAddressBytes = 1024;
inline constexpr size_t kMaxIdBytes = 1024;
inline constexpr size_t kMaxTypeBytes = 256;
inline constexpr size_t kMaxDiagnosticBytes = 1000;

// Fills everything but what only the ledger knows.
v1::Message MessageFrom(const mail::ParsedMail& parsed, const FolderKey& folder, uint32_t uid_validity,
                        const PendingMessage& listed);

}  // namespace poststelle::fetcher
