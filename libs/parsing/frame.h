// The pipe's language between parent and child: a 4-byte big-endian length, then that many bytes.
#pragma once

#include <cstdint>
#include <string>

namespace poststelle::parsing {

inline constexpr size_t kFrameHeader = 4;
// A mail above this is never handed to a child, a result above it never taken.
inline constexpr uint32_t kMaxFrame = 1u << 31;

std::string FrameHeader(uint32_t size);
uint32_t FrameSize(const char* header);

}  // namespace poststelle::parsing
