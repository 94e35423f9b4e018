// The language between parent and child: a 4-byte big-endian length, then that many bytes. The bytes of a mail that
// fits lie in memory that both share, which the child can only read; larger ones and all answers come through the pipe.
#pragma once

#include <cstdint>
#include <string>

namespace poststelle::parsing {

inline constexpr size_t kFrameHeader = 4;
// Shared memory of a child, and the descriptor under which it finds it. Most mails fit; what was touched stays
// resident.
inline constexpr size_t kSharedBytes = 1 << 20;
inline constexpr int kSharedDescriptor = 3;

// A mail above this is never handed to a child, a result above it never taken.
inline constexpr uint32_t kMaxFrame = 1u << 31;

// The child's first byte: its sandbox is in place. The other one is followed by the reason why it is not.
inline constexpr char kHello = 'P';
inline constexpr char kNoHello = '!';

std::string FrameHeader(uint32_t size);
uint32_t FrameSize(const char* header);

}  // namespace poststelle::parsing
