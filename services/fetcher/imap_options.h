// How a mailbox's definition says to connect.
#pragma once

#include "libs/imap/client.h"
#include "poststelle/config/v1/mailbox.pb.h"

namespace poststelle::fetcher {

// Encryption and what the server has to prove. The rest is at its defaults.
imap::ConnectOptions ImapOptions(const config::v1::Connection& connection);

}  // namespace poststelle::fetcher
