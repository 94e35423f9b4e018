// A decoded mail as one line of JSON, in the fields of the corpus (from, to, subject, text, attachments …).
#pragma once

#include <string>

#include "libs/mail/parsed_mail.pb.h"

namespace poststelle::parsing {

std::string ToJsonLine(const std::string& id, const mail::ParsedMail& mail);
std::string ErrorLine(const std::string& id, const std::string& error);

}  // namespace poststelle::parsing
