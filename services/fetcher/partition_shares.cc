#include "services/fetcher/partition_shares.h"

#include <algorithm>
#include <map>

namespace poststelle::fetcher {

std::vector<std::string> ShareOut(const std::vector<std::string>& members, const std::vector<std::string>& owners) {
  std::vector<std::string> out(owners.size());
  if (members.empty()) return out;
  std::map<std::string, size_t> owned;
  for (const std::string& member : members) owned[member] = 0;
  for (const std::string& owner : owners) {
    if (auto it = owned.find(owner); it != owned.end()) ++it->second;
  }
  // The larger shares go to those who have most already: fewer partitions move.
  std::vector<std::string> by_size = members;
  std::stable_sort(by_size.begin(), by_size.end(),
                   [&owned](const std::string& a, const std::string& b) { return owned[a] > owned[b]; });
  std::map<std::string, size_t> room;
  for (size_t i = 0; i < by_size.size(); ++i) {
    room[by_size[i]] = owners.size() / members.size() + (i < owners.size() % members.size() ? 1 : 0);
  }
  for (size_t p = 0; p < owners.size(); ++p) {
    auto it = room.find(owners[p]);
    if (it == room.end() || it->second == 0) continue;
    out[p] = owners[p];
    --it->second;
  }
  auto taker = by_size.begin();
  for (std::string& owner : out) {
    if (!owner.empty()) continue;
    while (room[*taker] == 0) ++taker;
    owner = *taker;
    --room[*taker];
  }
  return out;
}

}  // namespace poststelle::fetcher
