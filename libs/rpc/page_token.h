// Page tokens: opaque, bound to the request's other arguments, refused when altered.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace poststelle::rpc {

// `position` is where the next page begins, `arguments` what the list was asked for (filters), `key` a secret or at
// least installation-wide value of the service.
std::string MakePageToken(std::string_view key, std::string_view arguments, std::string_view position);

// The position; empty for an empty token. InvalidArgument for a token that this key did not make for these arguments.
absl::StatusOr<std::string> ReadPageToken(std::string_view key, std::string_view arguments, std::string_view token);

// AIP-158: 0 is the default, too large is cut, negative is InvalidArgument.
absl::StatusOr<int> PageSize(int requested, int fallback, int limit);

}  // namespace poststelle::rpc
