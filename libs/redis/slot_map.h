// Who serves which slot of a cluster, as CLUSTER SLOTS tells it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/redis/address.h"
#include "libs/redis/commands.h"
#include "libs/redis/slot.h"

namespace poststelle::redis {

struct SlotMap {
  static constexpr uint16_t kNobody = 0xffff;
  static constexpr size_t kMaxMasters = 1000;  // Redis' own recommended limit of nodes
  std::vector<Endpoint> masters;
  std::vector<Endpoint> replicas;        // never written to; asked for the map when masters are gone
  std::array<uint16_t, kSlots> owner{};  // index into masters
  bool single = false;                   // a server that is no cluster

  SlotMap() { owner.fill(kNobody); }
  // Null if nobody serves it.
  const Endpoint* OwnerOf(int slot) const;
  bool complete() const;
  // Gives the slots from..to to `master`. Nothing above kMaxMasters.
  void Assign(int from, int to, const Endpoint& master);
  // All slots to one server, which is no cluster.
  static SlotMap Single(const Endpoint& endpoint);
};

// The answer of `asked` to CLUSTER SLOTS. kInternal if it has another form.
absl::StatusOr<SlotMap> ParseSlots(const Reply& reply, const Endpoint& asked);

// MOVED or ASK: "MOVED 3999 127.0.0.1:6381". An empty host means the one that answered.
struct Redirect {
  int slot = 0;
  Endpoint target;
};
absl::StatusOr<Redirect> ParseRedirect(const std::string& error, const Endpoint& asked);

}  // namespace poststelle::redis
