#include "libs/redis/slot.h"

#include <gtest/gtest.h>

#include "libs/redis/protocol.h"
#include "libs/redis/slot_map.h"

namespace poststelle::redis {
namespace {

using namespace std::string_view_literals;

TEST(SlotTest, Crc16IsTheSpecifications) {
  EXPECT_EQ(Crc16("123456789"), 0x31c3);
  EXPECT_EQ(Crc16(""), 0);
}

// As CLUSTER KEYSLOT of Redis 7.0 answers.
TEST(SlotTest, HashTags) {
  EXPECT_EQ(SlotOf("foo"sv), 12182);
  EXPECT_EQ(SlotOf("bar"sv), 5061);
  EXPECT_EQ(SlotOf("{user1000}.following"sv), SlotOf("{user1000}.followers"sv));
  EXPECT_EQ(SlotOf("foo{bar}{zap}"sv), SlotOf("bar"sv));
  EXPECT_EQ(SlotOf("foo{{bar}}zap"sv), SlotOf("{bar"sv));
  EXPECT_EQ(SlotOf("foo{}{bar}"sv), Crc16("foo{}{bar}") % kSlots);
  EXPECT_EQ(SlotOf("foo{bar"sv), Crc16("foo{bar") % kSlots);
  EXPECT_EQ(SlotOf("{}"sv), Crc16("{}") % kSlots);
}

TEST(SlotTest, KeysOfOneCallLieInOneSlot) {
  EXPECT_EQ(SlotOf(std::vector<std::string>{"{a}1", "{a}2"}).value(), SlotOf("a"sv));
  EXPECT_TRUE(absl::IsInvalidArgument(SlotOf(std::vector<std::string>{"{a}1", "{b}1"}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(SlotOf(std::vector<std::string>{}).status()));
}

Reply Parse(std::string_view bytes) {
  AnswerReader reader;
  reader.Feed(bytes);
  return reader.Next().value().value().reply;
}

TEST(SlotMapTest, MastersReplicasAndUnknownAddresses) {
  const Endpoint asked{"seed", 1};
  const auto map =
      ParseSlots(Parse("*3\r\n"
                       "*4\r\n:0\r\n:99\r\n*3\r\n$1\r\na\r\n:7\r\n$1\r\ni\r\n*3\r\n$1\r\nr\r\n:8\r\n$1\r\nj\r\n"
                       "*3\r\n:100\r\n:100\r\n*3\r\n$-1\r\n:9\r\n$1\r\nk\r\n"
                       "*3\r\n:200\r\n:201\r\n*3\r\n$1\r\n?\r\n:9\r\n$1\r\nk\r\n"),
                 asked);
  ASSERT_TRUE(map.ok()) << map.status();
  EXPECT_EQ(*map->OwnerOf(0), (Endpoint{"a", 7}));
  EXPECT_EQ(*map->OwnerOf(99), (Endpoint{"a", 7}));
  EXPECT_EQ(*map->OwnerOf(100), (Endpoint{"seed", 9}));
  EXPECT_EQ(map->OwnerOf(200), nullptr);
  EXPECT_EQ(map->replicas, (std::vector<Endpoint>{{"r", 8}}));
  EXPECT_FALSE(map->complete());
}

TEST(SlotMapTest, AnotherFormIsRefused) {
  for (const char* bytes :
       {"+OK\r\n", "*1\r\n:1\r\n", "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\na\r\n:7\r\n",
        "*1\r\n*3\r\n:5\r\n:4\r\n*2\r\n$1\r\na\r\n:7\r\n", "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\na\r\n:0\r\n"}) {
    EXPECT_TRUE(absl::IsInternal(ParseSlots(Parse(bytes), {"seed", 1}).status())) << bytes;
  }
}

TEST(SlotMapTest, Redirections) {
  const Endpoint asked{"seed", 1};
  EXPECT_EQ(ParseRedirect("MOVED 42 h:7", asked).value().target, (Endpoint{"h", 7}));
  EXPECT_EQ(ParseRedirect("ASK 42 ::1:7", asked).value().target, (Endpoint{"::1", 7}));
  EXPECT_EQ(ParseRedirect("MOVED 42 :7", asked).value().target, (Endpoint{"seed", 7}));
  for (const char* wrong :
       {"MOVED", "MOVED 42", "MOVED 16384 h:7", "MOVED x h:7", "MOVED 42 h", "MOVED 42 h:0", "MOVED 42 ?:7"}) {
    EXPECT_FALSE(ParseRedirect(wrong, asked).ok()) << wrong;
  }
}

}  // namespace
}  // namespace poststelle::redis
