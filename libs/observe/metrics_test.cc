#include "libs/observe/metrics.h"

#include <gtest/gtest.h>

#include <chrono>

namespace poststelle::observe {
namespace {

TEST(Metrics, EndWithoutWaitingForTheHttpServerToLook) {
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 5; ++i) {
    Metrics metrics;
    ASSERT_TRUE(metrics.Expose("127.0.0.1:0").ok());
  }
  // By itself it looks every two seconds.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
}

}  // namespace
}  // namespace poststelle::observe
