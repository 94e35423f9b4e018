#include "cli/output.h"

#include <gtest/gtest.h>

namespace poststelle::cli {
namespace {

TEST(Output, TerminalSequencesInMailAreHarmless) {
  EXPECT_EQ(Escape("a\x1b[31m\nb"), "a\\x1b[31m\\x0ab");
  EXPECT_EQ(Escape("\xC2\x9B"
                   "31m ü"),
            "\\x9b31m ü");
}

TEST(Output, TablesAlignByCharacters) { EXPECT_EQ(Table({{"NAME", "X"}, {"Büro", "1"}}), "NAME  X\nBüro  1\n"); }

TEST(Output, EnumNamesAreShort) { EXPECT_EQ(Short("STATE_FAILING", "STATE_"), "failing"); }

}  // namespace
}  // namespace poststelle::cli
