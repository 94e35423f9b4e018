#include "services/config/catalogue_validator.h"

#include <glib.h>

#include "libs/base/text.h"

namespace poststelle::config {
namespace {

constexpr long kMaxName = 60;

bool IsName(const std::string& text) {
  const bool valid = g_utf8_validate(text.data(), static_cast<gssize>(text.size()), nullptr) != 0;
  const long length = valid ? g_utf8_strlen(text.data(), static_cast<gssize>(text.size())) : 0;
  return length >= 1 && length <= kMaxName && !HasControl(text);
}

bool IsColor(const std::string& color) {
  return color.size() == 7 && color[0] == '#' && color.find_first_not_of("0123456789abcdef", 1) == std::string::npos;
}

}  // namespace

std::vector<rpc::Violation> CheckEntry(const CatalogueEntry& entry, const std::string& field) {
  std::vector<rpc::Violation> violations;
  if (!IsName(entry.german)) {
    violations.push_back({field + ".german_name", "must have 1 to 60 characters and no control characters"});
  }
  if (entry.english != entry.german && !IsName(entry.english)) {
    violations.push_back({field + ".english_name", "must have 1 to 60 characters and no control characters"});
  }
  if (!entry.color.empty() && !IsColor(entry.color)) {
    violations.push_back({field + ".color", "must be a colour like #1e88e5"});
  }
  return violations;
}

void CheckSearch(const std::string& text, std::vector<rpc::Violation>& violations) {
  if (g_utf8_strlen(text.data(), static_cast<gssize>(text.size())) > kMaxName || HasControl(text)) {
    violations.push_back({"text", "must have at most 60 characters and no control characters"});
  }
}

}  // namespace poststelle::config
