// Bounds a page of a list by its bytes.
#pragma once

#include <cstddef>

namespace poststelle {

// A gRPC client refuses an answer above 4 MiB unless it was told otherwise, however few entries the answer has. Every
// list therefore ends a page before that and goes on with the next one. One budget a page; not thread-safe.
class PageBudget {
 public:
  // Bytes of the entries together. The rest up to 4 MiB is for what surrounds them, and for the page of a single entry
  // that is larger than this.
  static constexpr size_t kMaxBytes = 3 << 20;

  // True if an entry of `bytes` (serialised) still belongs on the page. The first one always does, so that no list
  // stands still.
  bool Take(size_t bytes) {
    if (!empty_ && bytes > kMaxBytes - used_) return false;
    empty_ = false;
    used_ = bytes > kMaxBytes - used_ ? kMaxBytes : used_ + bytes;
    return true;
  }

 private:
  size_t used_ = 0;
  bool empty_ = true;
};

}  // namespace poststelle
