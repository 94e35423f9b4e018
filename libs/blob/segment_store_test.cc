#include "libs/blob/segment_store.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "libs/blob/testing_blobs.h"

namespace poststelle::blob {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kBlock = 4096;  // what is synced together takes whole ones

class SegmentStore : public ::testing::Test {
 protected:
  std::unique_ptr<Store> Open(const std::string& owner, int64_t segment_bytes = int64_t{1} << 30) {
    auto opened = OpenSegmentStore(folder_, owner, segment_bytes);
    EXPECT_TRUE(opened.ok()) << opened.status();
    return opened.ok() ? std::move(*opened) : nullptr;
  }
  int64_t Reclaim(Store& store) {
    absl::StatusOr<int64_t> freed = db_.Await(store.Reclaim(db_.database()));
    EXPECT_TRUE(freed.ok()) << freed.status();
    return freed.value_or(-1);
  }
  mode_t Mode(const fs::path& path) {
    struct stat now{};
    EXPECT_EQ(stat(path.c_str(), &now), 0) << path;
    return now.st_mode & 0777;
  }

  BlobDatabase db_{sql::Engine::kSqlite};
  const fs::path folder_ = db_.folder() / "raw";
};

TEST_F(SegmentStore, OnlyItsOwnerMayLookAtTheFiles) {
  const auto store = Open("me");
  EncodedBlob blob = Encode(Noise(1000));
  ASSERT_TRUE(db_.Keep(*store, blob).ok());
  EXPECT_EQ(Mode(folder_), 0700u);
  EXPECT_EQ(Mode(folder_ / "me-1.raw"), 0600u);
  EXPECT_EQ(Mode(folder_ / "me.lock"), 0600u);
  EXPECT_TRUE(blob.chunks.empty());
  EXPECT_EQ(db_.Count("SELECT COUNT(*) FROM raw_chunk"), 0);
}

TEST_F(SegmentStore, ProcessesReadEachOthersAndOldRowsStayReadable) {
  EncodedBlob rows = Encode(Noise(1000, 1));
  ASSERT_TRUE(db_.Keep(*MakeRowStore(), rows).ok());
  const auto one = Open("one");
  const auto other = Open("other");
  EncodedBlob first = Encode(Noise(1000, 2));
  EncodedBlob second = Encode(Noise(1000, 3));
  ASSERT_TRUE(db_.Keep(*one, first).ok());
  ASSERT_TRUE(db_.Keep(*other, second).ok());
  for (const auto& store : {one.get(), other.get()}) {
    EXPECT_EQ(*db_.Read(*store, rows.sha256), Noise(1000, 1));
    EXPECT_EQ(*db_.Read(*store, first.sha256), Noise(1000, 2));
    EXPECT_EQ(*db_.Read(*store, second.sha256), Noise(1000, 3));
  }
  EXPECT_TRUE(absl::IsUnavailable(db_.Read(*MakeRowStore(), first.sha256).status()));
}

TEST_F(SegmentStore, AFullSegmentIsFollowedByTheNext) {
  const auto store = Open("me", 8000);
  for (unsigned i = 0; i < 6; ++i) {
    EncodedBlob blob = Encode(Noise(1000, i));
    ASSERT_TRUE(db_.Keep(*store, blob).ok());
    EXPECT_EQ(*db_.Read(*store, blob.sha256), Noise(1000, i));
  }
  EXPECT_TRUE(fs::exists(folder_ / "me-3.raw"));
  EXPECT_FALSE(fs::exists(folder_ / "me-4.raw"));
}

TEST_F(SegmentStore, TheSameBytesTriedAgainAreNotWrittenTwice) {
  const auto store = Open("me");
  for (int i = 0; i < 3; ++i) {
    EncodedBlob blob = Encode(Noise(1000));
    ASSERT_TRUE(db_.Await(store->Save({&blob})).ok());
  }
  EXPECT_EQ(fs::file_size(folder_ / "me-1.raw"), static_cast<uintmax_t>(kBlock));
}

// What was written and never committed, and what the living may still commit.
TEST_F(SegmentStore, OnlyWhatTheDeadLeftUncommittedIsReclaimed) {
  EncodedBlob committed = Encode(Noise(1000, 1));
  EncodedBlob garbage = Encode(Noise(2000, 2));
  {
    const auto dead = Open("dead");
    ASSERT_TRUE(db_.Keep(*dead, committed).ok());
    ASSERT_TRUE(db_.Await(dead->Save({&garbage})).ok());
    const auto unlucky = Open("unlucky");
    EncodedBlob nothing = Encode(Noise(500, 3));
    ASSERT_TRUE(db_.Await(unlucky->Save({&nothing})).ok());
  }
  const auto alive = Open("alive");
  EncodedBlob pending = Encode(Noise(3000, 4));
  ASSERT_TRUE(db_.Await(alive->Save({&pending})).ok());
  const auto next = Open("next");
  EXPECT_EQ(Reclaim(*next), 2 * kBlock - 1004 + kBlock);
  EXPECT_EQ(fs::file_size(folder_ / "dead-1.raw"), 1004u);
  EXPECT_FALSE(fs::exists(folder_ / "unlucky-1.raw"));
  EXPECT_FALSE(fs::exists(folder_ / "dead.lock"));
  EXPECT_TRUE(fs::exists(folder_ / "alive.lock"));
  EXPECT_TRUE(fs::exists(folder_ / "next.lock"));
  ASSERT_TRUE(db_.Commit(pending).ok());
  EXPECT_EQ(*db_.Read(*next, pending.sha256), Noise(3000, 4));
  EXPECT_EQ(*db_.Read(*next, committed.sha256), Noise(1000, 1));
  EXPECT_EQ(Reclaim(*next), 0);
}

TEST_F(SegmentStore, AMissingOrDamagedFileIsDataLoss) {
  const auto store = Open("me");
  EncodedBlob small = Encode(Noise(1000, 1));
  EncodedBlob large = Encode(Noise(2 * kChunkBytes, 2));
  EncodedBlob last = Encode(Noise(1000, 3));
  for (EncodedBlob* blob : {&small, &large, &last}) ASSERT_TRUE(db_.Keep(*store, *blob).ok());
  const fs::path file = folder_ / "me-1.raw";
  const auto spoil = [&](int64_t at) {
    std::fstream out(file, std::ios::in | std::ios::out | std::ios::binary);
    out.seekp(at);
    out.put('\xff');
  };
  spoil(small.place->offset + 100);  // a byte of its only chunk
  EXPECT_TRUE(absl::IsDataLoss(db_.ReadOne(*store, small.sha256, 0)));
  spoil(large.place->offset);  // a length
  EXPECT_TRUE(absl::IsDataLoss(db_.ReadOne(*store, large.sha256, 1)));
  fs::resize_file(file, static_cast<uintmax_t>(last.place->offset + 500));
  EXPECT_TRUE(absl::IsDataLoss(db_.ReadOne(*store, last.sha256, 0)));
  fs::remove(file);
  const absl::Status missing = db_.ReadOne(*store, last.sha256, 0);
  EXPECT_TRUE(absl::IsDataLoss(missing));
  EXPECT_NE(missing.message().find("me-1.raw"), std::string::npos) << missing;
  EXPECT_NE(missing.message().find("missing"), std::string::npos) << missing;
}

// A limit on the size of files stands for a full disk: a write comes to its end halfway.
TEST_F(SegmentStore, WhatDoesNotFitIsUnavailableAndLeavesNothing) {
  const auto store = Open("me");
  EncodedBlob before = Encode(Noise(1000, 1));
  ASSERT_TRUE(db_.Keep(*store, before).ok());
  EncodedBlob blob = Encode(Noise(100'000, 2));
  signal(SIGXFSZ, SIG_IGN);
  rlimit was{};
  getrlimit(RLIMIT_FSIZE, &was);
  rlimit small = was;
  small.rlim_cur = 50'000;
  setrlimit(RLIMIT_FSIZE, &small);
  const absl::Status full = db_.Await(store->Save({&blob}));
  setrlimit(RLIMIT_FSIZE, &was);
  EXPECT_TRUE(absl::IsUnavailable(full)) << full;
  EXPECT_NE(full.message().find(folder_.string()), std::string::npos) << full;
  EXPECT_FALSE(blob.place.has_value());
  EXPECT_EQ(blob.chunks.size(), 1u);
  EXPECT_EQ(fs::file_size(folder_ / "me-1.raw"), static_cast<uintmax_t>(kBlock));
  ASSERT_TRUE(db_.Keep(*store, blob).ok());
  EXPECT_EQ(*db_.Read(*store, blob.sha256), Noise(100'000, 2));
  EXPECT_EQ(*db_.Read(*store, before.sha256), Noise(1000, 1));
}

TEST_F(SegmentStore, ADirectoryThatCantBeUsedIsToldAtOnce) {
  std::ofstream(folder_) << "a file";
  const auto opened = OpenSegmentStore(folder_, "me");
  EXPECT_TRUE(absl::IsFailedPrecondition(opened.status())) << opened.status();
  EXPECT_NE(opened.status().message().find(folder_.string()), std::string::npos);
}

}  // namespace
}  // namespace poststelle::blob
