#include "libs/blob/unpack_base64.h"

#include <gtest/gtest.h>

#include <random>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "libs/base/base64_line.h"
#include "libs/blob/testing_blobs.h"

namespace poststelle::blob {
namespace {

std::string Lines(const std::string& bytes, size_t letters, const std::string& end = "\r\n") {
  const std::string encoded = absl::Base64Escape(bytes);
  std::string out;
  for (size_t at = 0; at < encoded.size(); at += letters) absl::StrAppend(&out, encoded.substr(at, letters), end);
  return out;
}

std::string There(const std::string& text, bool anyway = false) {
  std::string out;
  return UnpackBase64(text, out, anyway) ? out : "";
}

std::string AndBack(const std::string& unpacked, size_t limit = 1 << 20) {
  std::string out;
  return RepackBase64(unpacked, limit, out) ? out : "malformed";
}

TEST(Base64Line, EveryByteAtEveryPlaceIsALetterOrNone) {
  constexpr size_t kSize = 76;
  const std::string bytes = Noise(kSize / 4 * 3);
  const std::string line = absl::Base64Escape(bytes);
  for (size_t place = 0; place < kSize; ++place) {
    for (int byte = 0; byte < 256; ++byte) {
      std::string changed = line;
      changed[place] = static_cast<char>(byte);
      std::string theirs;
      const bool letters = changed.find_first_not_of(
                               "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") == std::string::npos;
      std::string ours(kSize / 4 * 3 + kBase64Slack, '\0');
      ASSERT_EQ(DecodeBase64Line(changed.data(), kSize, ours.data()), letters) << place << " " << byte;
      if (!letters) continue;
      ASSERT_TRUE(absl::Base64Unescape(changed, &theirs));
      ours.resize(kSize / 4 * 3);
      ASSERT_EQ(ours, theirs) << place << " " << byte;
      std::string again(kSize, '\0');
      EncodeBase64Line(ours.data(), ours.size(), again.data());
      ASSERT_EQ(again, changed);
    }
  }
}

TEST(UnpackedBase64, ComesBackByteByByte) {
  const std::string head = "Subject: x\r\n\r\nSome text\r\n";
  for (size_t letters : {32, 60, 64, 72, 76, 996}) {
    for (size_t size : {1000, 5000, 5001, 5002, 150'000}) {
      const std::string text =
          head + Lines(Noise(size), letters) + "--b\r\n" + Lines(Noise(size, 7), letters) + "--b--\r\n";
      const std::string unpacked = There(text);
      if (unpacked.empty()) continue;  // a few long lines
      EXPECT_LT(unpacked.size(), text.size() * 4 / 5) << letters << " " << size;
      EXPECT_EQ(AndBack(unpacked), text);
    }
  }
}

TEST(UnpackedBase64, WhatIsNotWorthItStays) {
  EXPECT_EQ(There(""), "");
  EXPECT_EQ(There("no line end"), "");
  EXPECT_EQ(There(Lines(Noise(5000), 76, "\n")), "");
  EXPECT_EQ(There(std::string(10'000, 'x') + "\r\n" + Lines(Noise(300), 76)), "");
}

// Whatever is wanted is given back as it was, and takes hardly more.
TEST(UnpackedBase64, AnythingComesBack) {
  std::mt19937 random(1);
  const std::string letters = "AB+/=\r\n ";
  for (int i = 0; i < 2000; ++i) {
    std::string text;
    const size_t pieces = random() % 40;
    for (size_t k = 0; k < pieces; ++k) {
      switch (random() % 4) {
        case 0:
          text += Lines(Noise(random() % 900, static_cast<unsigned>(random())), 4 * (7 + random() % 14));
          break;
        case 1:
          text += std::string(random() % 90, 'A');
          break;
        case 2:
          text += "\r\n";
          break;
        default:
          for (size_t n = random() % 100; n > 0; --n) text += letters[random() % letters.size()];
      }
    }
    const std::string unpacked = There(text, true);
    ASSERT_LE(unpacked.size(), text.size() + kMaxUnpackedGrowth);
    ASSERT_EQ(AndBack(unpacked), text);
  }
}

TEST(UnpackedBase64, TheMalformedIsRefused) {
  const std::string text = Lines(Noise(5000), 76);
  const std::string unpacked = There(text);
  ASSERT_FALSE(unpacked.empty());
  EXPECT_EQ(AndBack(unpacked, text.size()), text);
  EXPECT_EQ(AndBack(unpacked, text.size() - 1), "malformed");
  for (size_t size : {1, 11, 12, 500}) EXPECT_EQ(AndBack(unpacked.substr(0, size)), "malformed") << size;
  EXPECT_EQ(AndBack(std::string(12, '\xff')), "malformed");
  std::string odd = unpacked;
  odd[11] = 77;  // letters in a line
  EXPECT_EQ(AndBack(odd), "malformed");
}

}  // namespace
}  // namespace poststelle::blob
