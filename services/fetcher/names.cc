#include "services/fetcher/names.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "libs/base/text.h"
#include "libs/rpc/page_token.h"

namespace poststelle::fetcher {

std::string IdOf(const std::string& name, const std::string& collection, const std::string& field,
                 std::vector<rpc::Violation>& violations) {
  const std::string prefix = collection + "/";
  const bool good = absl::StartsWith(name, prefix) && name.size() > prefix.size() && name.size() <= 100 &&
                    name.find_first_of("/ ", prefix.size()) == std::string::npos && !HasControl(name);
  if (good) return name.substr(prefix.size());
  rpc::Violation violation;
  violation.field = field;
  violation.description = absl::StrCat("must be ", prefix, "{id}");
  violations.push_back(std::move(violation));
  return {};
}

Page PageOf(int page_size, const std::string& page_token, int fallback, const std::string& key,
            const std::string& arguments, std::vector<rpc::Violation>& violations) {
  Page page;
  absl::StatusOr<int> size = rpc::PageSize(page_size, fallback, 1000);
  absl::StatusOr<std::string> position = rpc::ReadPageToken(key, arguments, page_token);
  rpc::Violation violation;
  if (!size.ok()) {
    violation.field = "page_size";
    violation.description = std::string(size.status().message());
    violations.push_back(violation);
  }
  if (!position.ok()) {
    violation.field = "page_token";
    violation.description = std::string(position.status().message());
    violations.push_back(violation);
  }
  page.size = size.value_or(fallback);
  page.position = position.value_or("");
  return page;
}

bool IsSubscriptionName(const std::string& name) {
  return !name.empty() && name.size() <= 63 &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
}

}  // namespace poststelle::fetcher
