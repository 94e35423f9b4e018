#include "libs/observe/log.h"

#include <gtest/gtest.h>

#include "libs/base/secret_string.h"

namespace poststelle::observe {
namespace {

static_assert(!std::is_convertible_v<SecretString, nlohmann::json>, "a secret must not be loggable");

TEST(Log, WritesOneJsonObjectALineAndReplacesBadUtf8) {
  testing::internal::CaptureStderr();
  Log(Level::kWarning, "poll.failed", {{"mailbox", "a\xff\n"}, {"n", 5}});
  const std::string text = testing::internal::GetCapturedStderr();
  ASSERT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  const nlohmann::json line = nlohmann::json::parse(text);
  EXPECT_EQ(line["event"], "poll.failed");
  EXPECT_EQ(line["level"], "warning");
  EXPECT_EQ(line["n"], 5);
  EXPECT_EQ(line["mailbox"], "a\xEF\xBF\xBD\n");
}

TEST(Log, DropsWhatIsBelowTheLevel) {
  testing::internal::CaptureStderr();
  Log(Level::kDebug, "detail");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  Level level = Level::kInfo;
  EXPECT_TRUE(ParseLevel("error", level));
  EXPECT_EQ(level, Level::kError);
  EXPECT_FALSE(ParseLevel("loud", level));
}

}  // namespace
}  // namespace poststelle::observe
