// What is known about an address: settings, provider, notes.
#pragma once

#include <string>

#include "cli/context.h"

namespace poststelle::cli {

// Prints what SuggestSettings proposes for `address`; the exit code.
int Suggest(const Context& context, const std::string& address);

// Fills connection and login name of `mailbox`, whose direction is set, with what is proposed for `address`, taking the
// proposal with this encryption ("" for the first). Not with a server that only DNS names and that lies outside of the
// address's domain: whoever can answer for DNS would be sent the password (RFC 6186 section 6). False, with a message
// on standard error, if there is nothing to fill in; `exit_code` is then the command's.
bool FillFromSuggestion(const Context& context, const std::string& address, const std::string& encryption,
                        config::v1::Mailbox& mailbox, int& exit_code);

}  // namespace poststelle::cli
