// Blocking sockets on 127.0.0.1, for tests.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "absl/time/time.h"

namespace poststelle::testing {

// Listens on a free port; the port goes to `port`. The caller closes the descriptor.
int Listen(uint16_t& port);
// A port that nobody uses now.
uint16_t FreePort();
// Whether somebody accepts connections there.
bool Answers(uint16_t port);
// All of it; false if the peer is gone.
bool SendAll(int fd, std::string_view bytes);
// Polls until `condition` holds; false after `limit`, which only ends a test that hangs.
bool Eventually(const std::function<bool()>& condition, absl::Duration limit = absl::Seconds(60));

}  // namespace poststelle::testing
