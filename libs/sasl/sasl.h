// SASL messages for signing in to mail servers.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "libs/base/secret_string.h"

namespace poststelle::sasl {

// RFC 4616: NUL login NUL password, in base64. InvalidArgument if either holds a NUL.
absl::StatusOr<SecretString> Plain(std::string_view login, const SecretString& password);

// One answer of the LOGIN mechanism, in base64.
SecretString Base64(std::string_view bytes);

}  // namespace poststelle::sasl
