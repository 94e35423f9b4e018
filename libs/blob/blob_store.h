// Raw messages as chunk rows: content-addressed, compressed where it pays, written in the caller's transaction.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/sql/database.h"

namespace poststelle::blob {

// Bytes of a raw message in one row; bounds what a download holds in memory.
inline constexpr size_t kChunkBytes = 256 << 10;

// Tables, for the owner's migrations. codec: 0 as it is, 1 zstd (each chunk a frame of its own).
inline constexpr std::string_view kBlobSchema = R"sql(
CREATE TABLE raw_message (
  sha256 BLOB PRIMARY KEY,
  size BIGINT NOT NULL,
  codec INTEGER NOT NULL,
  chunks INTEGER NOT NULL
);
CREATE TABLE raw_chunk (
  sha256 BLOB NOT NULL,
  idx INTEGER NOT NULL,
  bytes BLOB NOT NULL,
  PRIMARY KEY (sha256, idx)
);
)sql";

// A message ready to be stored. Encoding costs CPU and no SQL, so it is done before the transaction.
struct EncodedBlob {
  std::string sha256;  // 32 bytes
  int64_t size = 0;
  int codec = 0;
  std::vector<std::string> chunks;
};
EncodedBlob Encode(std::string_view raw);

// The statements that store `blobs` unless they are there already, for one exchange with others; in the order of their
// hashes, so that of several writers none waits for one who waits for it.
void AppendPut(std::vector<const EncodedBlob*> blobs, std::vector<sql::Statement>& statements);

// Stores `blob` unless it is there already.
async::Task<absl::Status> Put(sql::Transaction& tx, const EncodedBlob& blob);

struct BlobInfo {
  int64_t size = 0;
  int codec = 0;
  int64_t chunks = 0;
};
// NotFound if nothing is stored under `sha256`.
async::Task<absl::StatusOr<BlobInfo>> Stat(sql::Transaction& tx, const std::string& sha256);
// Chunk `index`, decompressed. DataLoss if it is damaged, NotFound if it is missing.
async::Task<absl::StatusOr<std::string>> ReadChunk(sql::Transaction& tx, const std::string& sha256, int64_t index);
// The whole message, its hash checked. DataLoss if it does not match.
async::Task<absl::StatusOr<std::string>> ReadAll(sql::Transaction& tx, const std::string& sha256);

}  // namespace poststelle::blob
