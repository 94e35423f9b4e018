#include "libs/parsing/frame.h"

namespace poststelle::parsing {

std::string FrameHeader(uint32_t size) {
  return {static_cast<char>(size >> 24), static_cast<char>(size >> 16), static_cast<char>(size >> 8),
          static_cast<char>(size)};
}

uint32_t FrameSize(const char* header) {
  const auto* b = reinterpret_cast<const unsigned char*>(header);
  return static_cast<uint32_t>(b[0]) << 24 | static_cast<uint32_t>(b[1]) << 16 | static_cast<uint32_t>(b[2]) << 8 |
         b[3];
}

std::string EncodeRequest(const Request& request) {
  return FrameHeader(request.size) + FrameHeader(request.offset) + static_cast<char>(request.more);
}

Request DecodeRequest(const char* bytes) {
  Request request;
  request.size = FrameSize(bytes);
  request.offset = FrameSize(bytes + 4);
  request.more = bytes[8] != 0;
  return request;
}

}  // namespace poststelle::parsing
