// Which slot of a cluster a key lies in (Redis Cluster specification, "Key distribution model").
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace poststelle::redis {

inline constexpr int kSlots = 16384;

// CRC-16/XMODEM: polynomial 0x1021, initial value 0.
uint16_t Crc16(std::string_view bytes);

// By the hash tag, if there is one: what stands between the first '{' and the next '}', unless that is empty.
int SlotOf(std::string_view key);

// The one slot in which all keys lie; kInvalidArgument if there is none.
absl::StatusOr<int> SlotOf(const std::vector<std::string>& keys);

}  // namespace poststelle::redis
