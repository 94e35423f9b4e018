// Reports that a mail could not be delivered: RFC 3464, and those in words of older servers.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "libs/mail/parsed_mail.pb.h"

namespace poststelle::mail {

inline constexpr int kMaxDeliveryReports = 100;
inline constexpr size_t kMaxRecipientBytes = 320;
inline constexpr size_t kMaxDiagnosticBytes = 1000;

// The recipients of a message/delivery-status part (RFC 3464 §2.3, RFC 6533 §3), those broken in the usual ways
// included: without an empty line between them, or without an action. At most kMaxDeliveryReports.
std::vector<DeliveryReport> ReadDeliveryStatus(std::string_view content);

// The recipients that a bounce names in its text, with the words beside each: `<joe@example.org>:` and the lines below
// (qmail), an address alone on a line (Exim, Gmail, Domino), `550 5.1.1 <joe@example.org>... User unknown` (Sendmail),
// or, where there is no such list, the first address in a sentence about a failure. What follows the beginning of the
// returned mail does not count.
std::vector<DeliveryReport> ReadBounceText(std::string_view text);

// The Message-ID of the returned mail where it stands in the text of a bounce; empty if none does.
std::string ReturnedMessageId(std::string_view text);

// `550` or `5.1.1` in a server's words; empty if there is none.
std::string ReplyCodeIn(std::string_view words);
std::string StatusIn(std::string_view words);

// True for something that may be an address, and is nothing else.
bool LooksLikeAddress(std::string_view text);

}  // namespace poststelle::mail
