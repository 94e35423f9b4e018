// Who of a subscription's members gets which partition.
#pragma once

#include <string>
#include <vector>

namespace poststelle::fetcher {

// For each partition its owner out of `members` (in the order in which they joined): shares differ by one at most, and
// no partition moves that need not. `owners` holds the present ones; a name that is not a member counts as nobody.
// Members beyond the number of partitions get none. Empty names when there are no members.
std::vector<std::string> ShareOut(const std::vector<std::string>& members, const std::vector<std::string>& owners);

}  // namespace poststelle::fetcher
