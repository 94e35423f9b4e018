// One window of a folder's listing, asked for and answered: for polls and for previews.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"
#include "libs/imap/client.h"
#include "services/fetcher/listing_windows.h"

namespace poststelle::fetcher {

// By what a message is recognised under another identity; called while the listing comes.
using AnchorOf = std::function<std::string(const imap::MessageInfo&)>;

// The messages of `range`, by UID, at most as many as ListingAnswer keeps; `windows` is told how many came. Headers are
// asked for only with `anchor_of`. Errors as imap::Client::FetchInfos, and kProtocol as ListingAnswer::Take.
async::Task<absl::StatusOr<std::vector<ListedMessage>>> ListWindow(imap::Client& client, imap::UidRange range,
                                                                   AnchorOf anchor_of, ListingWindows& windows);

}  // namespace poststelle::fetcher
