// The language between parent and child, numbers big-endian. The parent sends a request for each mail, the child an
// answer: a length, then that many bytes. The bytes of a mail that fits lie in memory that both share, which the child
// can only read; a larger one comes through the pipe, behind its request.
#pragma once

#include <cstdint>
#include <string>

namespace poststelle::parsing {

inline constexpr size_t kFrameHeader = 4;
inline constexpr size_t kRequestBytes = 9;
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

struct Request {
  uint32_t size = 0;    // of the mail
  uint32_t offset = 0;  // where it begins in the shared memory
  bool more = false;    // another request is behind it: answers may wait for each other's company
};
std::string EncodeRequest(const Request& request);
Request DecodeRequest(const char* bytes);

}  // namespace poststelle::parsing
