#include "libs/redis/slot.h"

#include <array>

#include "absl/strings/str_cat.h"

namespace poststelle::redis {
namespace {

constexpr std::array<uint16_t, 256> MakeTable() {
  std::array<uint16_t, 256> table{};
  for (unsigned byte = 0; byte < 256; ++byte) {
    unsigned crc = byte << 8;
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 0x8000) != 0 ? (crc << 1) ^ 0x1021 : crc << 1;
    table[byte] = static_cast<uint16_t>(crc);
  }
  return table;
}
constexpr std::array<uint16_t, 256> kTable = MakeTable();

}  // namespace

uint16_t Crc16(std::string_view bytes) {
  uint16_t crc = 0;
  for (const char c : bytes) {
    crc = static_cast<uint16_t>((crc << 8) ^ kTable[((crc >> 8) ^ static_cast<unsigned char>(c)) & 0xff]);
  }
  return crc;
}

int SlotOf(std::string_view key) {
  if (const size_t open = key.find('{'); open != std::string_view::npos) {
    const size_t close = key.find('}', open + 1);
    if (close != std::string_view::npos && close > open + 1) key = key.substr(open + 1, close - open - 1);
  }
  return Crc16(key) % kSlots;
}

absl::StatusOr<int> SlotOf(const std::vector<std::string>& keys) {
  if (keys.empty()) return absl::InvalidArgumentError("a script without keys can't be routed");
  const int slot = SlotOf(keys.front());
  for (const std::string& key : keys) {
    if (SlotOf(key) != slot) {
      return absl::InvalidArgumentError(
          absl::StrCat("keys of one call lie in different slots: ", keys.front(), " and ", key));
    }
  }
  return slot;
}

}  // namespace poststelle::redis
