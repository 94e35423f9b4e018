// Checks of resource names and page arguments that every service of the fetcher needs.
#pragma once

#include <string>
#include <vector>

#include "libs/rpc/status.h"

namespace poststelle::fetcher {

// The id behind "collection/", or a violation of `field` ("must be collection/{id}").
std::string IdOf(const std::string& name, const std::string& collection, const std::string& field,
                 std::vector<rpc::Violation>& violations);

// A page of a list: its size and where it begins.
struct Page {
  int size = 0;
  std::string position;
};
Page PageOf(int page_size, const std::string& page_token, int fallback, const std::string& key,
            const std::string& arguments, std::vector<rpc::Violation>& violations);

// 1 to 63 characters of a-z, 0-9 and hyphen.
bool IsSubscriptionName(const std::string& name);

}  // namespace poststelle::fetcher
