#include "libs/redis/slot_map.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "libs/base/status_macros.h"

namespace poststelle::redis {
namespace {

absl::Status Unknown(const char* what) {
  return absl::InternalError(absl::StrCat("Redis answered in an unknown form: ", what));
}

// [host, port, id, metadata…] → endpoint. Nil or empty means: as you reached me.
absl::StatusOr<Endpoint> ParseNode(const Reply& reply, const Endpoint& asked) {
  if (reply.array.size() < 2 || reply.array[1].kind != Reply::Kind::kInteger) return Unknown("a node of CLUSTER SLOTS");
  Endpoint out;
  out.host = reply.array[0].string;
  if (out.host.empty()) out.host = asked.host;
  const int64_t port = reply.array[1].integer;
  if (port < 1 || port > 65535) return Unknown("a port of CLUSTER SLOTS");
  out.port = static_cast<uint16_t>(port);
  return out;
}

}  // namespace

const Endpoint* SlotMap::OwnerOf(int slot) const {
  const uint16_t index = owner[static_cast<size_t>(slot)];
  return index == kNobody ? nullptr : &masters[index];
}

bool SlotMap::complete() const { return std::find(owner.begin(), owner.end(), kNobody) == owner.end(); }

void SlotMap::Assign(int from, int to, const Endpoint& master) {
  auto known = std::find(masters.begin(), masters.end(), master);
  if (known == masters.end()) {
    if (masters.size() >= kMaxMasters) return;
    known = masters.insert(masters.end(), master);
  }
  std::fill(owner.begin() + from, owner.begin() + to + 1, static_cast<uint16_t>(known - masters.begin()));
}

SlotMap SlotMap::Single(const Endpoint& endpoint) {
  SlotMap out;
  out.masters.push_back(endpoint);
  out.owner.fill(0);
  out.single = true;
  return out;
}

absl::StatusOr<SlotMap> ParseSlots(const Reply& reply, const Endpoint& asked) {
  if (reply.kind != Reply::Kind::kArray) return Unknown("CLUSTER SLOTS");
  SlotMap out;
  for (const Reply& range : reply.array) {
    if (range.array.size() < 3) return Unknown("a range of CLUSTER SLOTS");
    const int64_t from = range.array[0].integer, to = range.array[1].integer;
    if (from < 0 || to < from || to >= kSlots) return Unknown("slot numbers");
    if (range.array[2].array.empty() || range.array[2].array[0].string == "?")
      continue;  // its address is not known yet
    PS_ASSIGN_OR_RETURN(const Endpoint master, ParseNode(range.array[2], asked));
    out.Assign(static_cast<int>(from), static_cast<int>(to), master);
    for (size_t i = 3; i < range.array.size() && out.replicas.size() < SlotMap::kMaxMasters; ++i) {
      if (range.array[i].array.empty() || range.array[i].array[0].string == "?") continue;
      PS_ASSIGN_OR_RETURN(Endpoint replica, ParseNode(range.array[i], asked));
      if (std::find(out.replicas.begin(), out.replicas.end(), replica) == out.replicas.end()) {
        out.replicas.push_back(std::move(replica));
      }
    }
  }
  return out;
}

absl::StatusOr<Redirect> ParseRedirect(const std::string& error, const Endpoint& asked) {
  const std::vector<std::string> words = absl::StrSplit(error, ' ');
  Redirect out;
  int port = 0;
  const size_t colon = words.size() < 3 ? std::string::npos : words[2].rfind(':');
  if (colon == std::string::npos || !absl::SimpleAtoi(words[1], &out.slot) || out.slot < 0 || out.slot >= kSlots ||
      !absl::SimpleAtoi(words[2].substr(colon + 1), &port) || port < 1 || port > 65535) {
    return Unknown("a redirection");
  }
  out.target.host = words[2].substr(0, colon);
  if (out.target.host.empty()) out.target.host = asked.host;
  if (out.target.host == "?") return absl::UnavailableError("the cluster does not know the node's address yet");
  out.target.port = static_cast<uint16_t>(port);
  return out;
}

}  // namespace poststelle::redis
