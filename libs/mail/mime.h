// A whole mail, decoded.
#pragma once

#include <string_view>

#include "libs/mail/parsed_mail.pb.h"

namespace poststelle::mail {

// Decodes `raw` with GMime, or, where a limit of scan.h is exceeded, with our own scan of the headers and the mark
// undecodable. Never fails; may crash on input that GMime can't bear, so it runs in a child process (libs/parsing).
// Call InitMime first.
ParsedMail ParseMail(std::string_view raw);

// Once a process, before any thread parses.
void InitMime();

}  // namespace poststelle::mail
