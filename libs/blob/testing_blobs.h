// What the tests of both stores share. For tests only.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>

#include "libs/base/status_macros.h"
#include "libs/blob/blob_store.h"
#include "libs/testing/temp_database.h"

namespace poststelle::blob {

inline std::string Noise(size_t size, unsigned seed = 42) {
  std::mt19937 random(seed);
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>(random());
  return out;
}

// A migrated database of one engine.
class BlobDatabase {
 public:
  explicit BlobDatabase(sql::Engine engine) : store_(engine) {
    auto opened = sql::Open(runtime_.executor(), store_.url());
    if (!opened.ok()) throw std::runtime_error(opened.status().ToString());
    database_ = std::move(*opened);
    const absl::Status migrated =
        Await(sql::Migrate(*database_, {{1, "blobs", kBlobSchema}, {2, "segments", kSegmentSchema}}));
    if (!migrated.ok()) throw std::runtime_error(migrated.ToString());
  }

  template <typename T>
  T Await(async::Task<T> task) {
    std::optional<T> out;
    async::RunBlocking(runtime_.executor(), Into(std::move(task), out));
    return std::move(*out);
  }

  // As a publication does.
  absl::Status Keep(Store& store, EncodedBlob& blob) {
    PS_RETURN_IF_ERROR(Await(store.Save({&blob})));
    return Commit(blob);
  }
  absl::Status Commit(const EncodedBlob& blob) {
    return Await(database_->Write([&](sql::Transaction& tx) { return Put(tx, blob); }));
  }
  absl::StatusOr<std::string> Read(Store& store, const std::string& sha256) {
    std::string raw;
    const absl::Status read = Await(database_->Read([&](sql::Transaction& tx) -> async::Task<absl::Status> {
      PS_CO_ASSIGN_OR_RETURN(raw, co_await store.ReadAll(tx, sha256));
      co_return absl::OkStatus();
    }));
    if (!read.ok()) return read;
    return raw;
  }
  absl::Status ReadOne(Store& store, const std::string& sha256, int64_t index) {
    return Await(database_->Read([&](sql::Transaction& tx) -> async::Task<absl::Status> {
      co_return (co_await store.ReadChunk(tx, sha256, index)).status();
    }));
  }
  int64_t Count(std::string_view query) {
    int64_t count = -1;
    const absl::Status read = Await(database_->Read([&](sql::Transaction& tx) -> async::Task<absl::Status> {
      PS_CO_ASSIGN_OR_RETURN(sql::Result rows, co_await tx.Execute(query));
      count = rows.rows[0].Int(0);
      co_return absl::OkStatus();
    }));
    EXPECT_TRUE(read.ok()) << read;
    return count;
  }

  sql::Database& database() { return *database_; }
  const std::filesystem::path& folder() const { return store_.folder(); }

 private:
  template <typename T>
  static async::Task<void> Into(async::Task<T> task, std::optional<T>& out) {
    out.emplace(co_await std::move(task));
  }

  testing::TempDatabase store_;
  async::Runtime runtime_{2};
  std::unique_ptr<sql::Database> database_;
};

}  // namespace poststelle::blob
