#include "libs/blob/blob_store.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "libs/base/ids.h"
#include "libs/base/status_macros.h"

namespace poststelle::blob {
namespace {

async::Task<void> Into(async::Task<absl::Status> task, absl::Status& out) { out = co_await std::move(task); }

std::string Noise(size_t size) {
  std::mt19937 random(42);
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>(random());
  return out;
}

TEST(BlobStore, WhatWasPutComesBackOnceStored) {
  const auto path = std::filesystem::temp_directory_path() / ("poststelle-blob-" + RandomId() + ".db");
  async::Runtime runtime(1);
  {
    auto db = sql::Open(runtime.executor(), "sqlite:" + path.string());
    ASSERT_TRUE(db.ok());
    auto await = [&runtime](async::Task<absl::Status> task) {
      absl::Status out;
      async::RunBlocking(runtime.executor(), Into(std::move(task), out));
      return out;
    };
    ASSERT_TRUE(await(sql::Migrate(**db, {{1, "blobs", kBlobSchema}})).ok());
    for (const std::string& raw :
         {std::string(), std::string("short"), std::string(3 * kChunkBytes + 7, 'a'), Noise(kChunkBytes + 1)}) {
      const EncodedBlob blob = Encode(raw);
      absl::Status done = await((*db)->Write([&](sql::Transaction& tx) -> async::Task<absl::Status> {
        PS_CO_RETURN_IF_ERROR(co_await Put(tx, blob));
        PS_CO_RETURN_IF_ERROR(co_await Put(tx, blob));
        PS_CO_ASSIGN_OR_RETURN(std::string back, co_await ReadAll(tx, blob.sha256));
        EXPECT_EQ(back, raw);
        co_return absl::OkStatus();
      }));
      EXPECT_TRUE(done.ok()) << done;
    }
    absl::Status missing = await((*db)->Read([](sql::Transaction& tx) -> async::Task<absl::Status> {
      co_return (co_await ReadAll(tx, std::string(32, 'x'))).status();
    }));
    EXPECT_TRUE(absl::IsNotFound(missing));
  }
  for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path.string() + suffix);
}

TEST(BlobStore, CompressesOnlyWhatShrinks) {
  EXPECT_EQ(Encode(std::string(100'000, 'a')).codec, 1);
  EXPECT_EQ(Encode(Noise(100'000)).codec, 0);
}

}  // namespace
}  // namespace poststelle::blob
