// Proposes settings for an address (SPEC B3).
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "poststelle/config/v1/mailbox_service.pb.h"
#include "services/config/fetcher_client.h"

namespace poststelle::config {

// The domain of a mail address in ASCII form and lower case (IDNA2008, RFC 5891). kInvalidArgument, with the words for
// a person, if it is no address.
absl::StatusOr<std::string> AsciiDomainOf(const std::string& address);

// From the table of providers, else from what `lookup` finds, else by guess. INVALID_ARGUMENT names `address`; it does
// not fail otherwise.
async::Task<grpc::Status> Suggest(ServerLookup& lookup, const v1::SuggestSettingsRequest& request,
                                  v1::SuggestSettingsResponse& response);

}  // namespace poststelle::config
