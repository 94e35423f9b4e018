// Names of hosts and domains.
#pragma once

#include <string_view>

namespace poststelle {

// Whether `name` is a name of DNS as hosts and domains have it (RFC 1123, and the underscore that some have all the
// same): labels of 1 to 63 letters, digits, hyphens and underscores, at most 253 characters, no dot at the end.
inline bool IsHostName(std::string_view name) {
  if (name.empty() || name.size() > 253) return false;
  size_t label = 0;
  for (const char c : name) {
    const bool good =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    if (c == '.' ? label == 0 : !good || label == 63) return false;
    label = c == '.' ? 0 : label + 1;
  }
  return label > 0;
}

}  // namespace poststelle
