#include "libs/blob/blob_store.h"

#include <gtest/gtest.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "libs/blob/segment_store.h"
#include "libs/blob/testing_blobs.h"

namespace poststelle::blob {
namespace {

// A mail with an attachment of `size` bytes.
std::string Attachment(size_t size) {
  const std::string encoded = absl::Base64Escape(Noise(size));
  std::string raw = "Subject: x\r\n\r\n";
  for (size_t at = 0; at < encoded.size(); at += 76) absl::StrAppend(&raw, encoded.substr(at, 76), "\r\n");
  return raw;
}

struct Kind {
  sql::Engine engine;
  bool segments;
};

class BlobStore : public ::testing::TestWithParam<Kind> {
 protected:
  BlobStore() : db_(GetParam().engine) {
    if (!GetParam().segments) {
      store_ = MakeRowStore();
      return;
    }
    auto opened = OpenSegmentStore(db_.folder() / "raw", "me");
    if (!opened.ok()) throw std::runtime_error(opened.status().ToString());
    store_ = std::move(*opened);
  }
  BlobDatabase db_;
  std::unique_ptr<Store> store_;
};
INSTANTIATE_TEST_SUITE_P(Stores, BlobStore,
                         ::testing::Values(Kind{sql::Engine::kSqlite, false}, Kind{sql::Engine::kPostgres, false},
                                           Kind{sql::Engine::kSqlite, true}),
                         [](const auto& info) {
                           return testing::EngineName(info.param.engine) + (info.param.segments ? "Segments" : "Rows");
                         });

TEST_P(BlobStore, WhatWasPutComesBackOnceStored) {
  for (const std::string& raw :
       {std::string(), std::string("short"), std::string(3 * kChunkBytes + 7, 'a'), Noise(kChunkBytes + 1),
        Noise(kChunkBytes), Attachment(kChunkBytes / 2), Attachment(3 * kChunkBytes)}) {
    EncodedBlob blob = Encode(raw);
    EncodedBlob again = Encode(raw);
    ASSERT_TRUE(db_.Keep(*store_, blob).ok());
    ASSERT_TRUE(db_.Keep(*store_, again).ok());
    absl::StatusOr<std::string> back = db_.Read(*store_, blob.sha256);
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(*back, raw);
    EXPECT_TRUE(absl::IsNotFound(db_.ReadOne(*store_, blob.sha256, blob.chunk_count)));
    EXPECT_TRUE(absl::IsNotFound(db_.ReadOne(*store_, blob.sha256, -1)));
  }
  EXPECT_EQ(db_.Count("SELECT COUNT(*) FROM raw_message"), 7);
  EXPECT_TRUE(absl::IsNotFound(db_.Read(*store_, std::string(32, 'x')).status()));
}

TEST_P(BlobStore, ManyAtOnceEachHaveTheirOwn) {
  std::vector<EncodedBlob> blobs;
  for (unsigned i = 0; i < 600; ++i) blobs.push_back(Encode(Noise(100 + i, i)));
  std::vector<EncodedBlob*> all;
  for (EncodedBlob& blob : blobs) all.push_back(&blob);
  ASSERT_TRUE(db_.Await(store_->Save(all)).ok());
  for (const EncodedBlob& blob : blobs) ASSERT_TRUE(db_.Commit(blob).ok());
  for (unsigned i = 0; i < blobs.size(); ++i) {
    absl::StatusOr<std::string> back = db_.Read(*store_, blobs[i].sha256);
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(*back, Noise(100 + i, i));
  }
}

TEST(BlobEncoding, CompressesOnlyWhatShrinks) {
  EXPECT_EQ(Encode(std::string(100'000, 'a')).codec, 1);
  EXPECT_EQ(Encode(Noise(100'000)).codec, 0);
  const EncodedBlob attachment = Encode(Attachment(100'000));
  EXPECT_EQ(attachment.codec, 2);
  EXPECT_LT(attachment.chunks[0].size(), 101'000u);
}

}  // namespace
}  // namespace poststelle::blob
