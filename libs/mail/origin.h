// Who or what wrote a mail: a person, or a machine that answers, tells, bounces or confirms.
#pragma once

#include <string>
#include <string_view>

#include "libs/mail/parsed_mail.pb.h"

namespace poststelle::mail {

// What the parts of a mail hold beside its text; empty in a mail of which only headers are known. Parts of a mail that
// is attached to this one do not count: they tell about that one.
struct ReportParts {
  static constexpr size_t kMaxBytes = 256 << 10;  // that are looked at, of each of these

  bool delivery_status = false;  // there is a message/delivery-status (RFC 3464) or message/global-delivery-status
  std::string recipients;        // what it says, in UTF-8
  bool disposition = false;      // message/disposition-notification (RFC 8098)
  bool feedback = false;         // message/feedback-report (RFC 5965)
  std::string returned_headers;  // of the mail that comes back (message/rfc822, text/rfc822-headers)

  // Takes down the part if it is one of these.
  void Take(std::string_view type, std::string_view content);
  bool any() const { return delivery_status || disposition || feedback; }
};

// Sets origin, its evidence and the delivery reports of `mail`, whose text is known by now or empty.
//
// A mail is a person's until a header says otherwise: the fields of RFC 3834 and what was there before it, a report as
// the mail's own media type (RFC 6522), an empty return path (RFC 5321 §4.5.5), a sender such as mailer-daemon. Subject
// and text only ever tell the kind of what a header has shown to be a machine's, so that nobody who quotes an absence
// note or a bounce is taken for one. Mail over a list is its writer's, whatever the list adds.
void ClassifyOrigin(std::string_view header_block, const ReportParts& parts, ParsedMail& mail);

}  // namespace poststelle::mail
