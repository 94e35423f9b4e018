// Runs a coroutine to its end from a test's own thread.
#pragma once

#include <optional>
#include <utility>

#include "libs/async/runtime.h"

namespace poststelle::testing {

template <typename T>
async::Task<void> Into(async::Task<T> task, std::optional<T>& out) {
  out.emplace(co_await std::move(task));
}

// Its result. Blocks; never from a coroutine.
template <typename T>
T Await(const async::Runtime& runtime, async::Task<T> task) {
  std::optional<T> out;
  async::RunBlocking(runtime.executor(), Into(std::move(task), out));
  return std::move(*out);
}

}  // namespace poststelle::testing
