// Raw messages: content-addressed, compressed where it pays. A row tells what is stored; the bytes are chunk rows
// beside it or lie in a segment file (segment_store.h), as the store that was chosen at start wrote them. Any store's
// rows can be read later by the other one, files as long as they are within its reach.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/sql/database.h"

namespace poststelle::blob {

// Bytes of a raw message in one chunk; bounds what a download holds in memory.
inline constexpr size_t kChunkBytes = 256 << 10;

// Tables, for the owner's migrations. codec: 0 as it is, 1 zstd (each chunk a frame of its own), 2 the same
// of a form in which base64 is decoded (unpack_base64.h).
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
// A later step of them. A message with a segment has no chunk rows.
inline constexpr std::string_view kSegmentSchema = R"sql(
ALTER TABLE raw_message ADD COLUMN segment TEXT;
ALTER TABLE raw_message ADD COLUMN segment_offset BIGINT;
ALTER TABLE raw_message ADD COLUMN segment_bytes BIGINT;
-- What of a segment is referred to.
CREATE INDEX raw_message_by_segment ON raw_message (segment, segment_offset) WHERE segment IS NOT NULL;
)sql";

// Where the chunks of a message lie: each behind its length (4 bytes, big-endian).
struct Place {
  std::string segment;  // name of the file
  int64_t offset = 0;
  int64_t bytes = 0;
};

// A message ready to be stored. Encoding costs CPU and no SQL, so it is done before the transaction.
struct EncodedBlob {
  std::string sha256;  // 32 bytes
  int64_t size = 0;
  int codec = 0;
  int64_t chunk_count = 0;
  std::vector<std::string> chunks;  // empty once they have their place
  std::optional<Place> place;
};
EncodedBlob Encode(std::string_view raw);

// The statements that store `blobs` unless they are there already, for one exchange with others; in the order of their
// hashes, so that of several writers none waits for one who waits for it. Store::Save comes first.
void AppendPut(std::vector<const EncodedBlob*> blobs, std::vector<sql::Statement>& statements);

// Stores `blob` unless it is there already.
async::Task<absl::Status> Put(sql::Transaction& tx, const EncodedBlob& blob);

struct BlobInfo {
  int64_t size = 0;
  int codec = 0;
  int64_t chunks = 0;
  std::optional<Place> place;
};
// NotFound if nothing is stored under `sha256`.
async::Task<absl::StatusOr<BlobInfo>> Stat(sql::Transaction& tx, const std::string& sha256);

// Where raw bytes are kept. Thread-safe.
class Store {
 public:
  virtual ~Store() = default;

  // Makes durable what this store keeps outside of the database; every transaction that stores a blob comes after it.
  // Bytes that no committed row refers to in the end are reclaimed at a later start. kUnavailable if they can't be
  // written now (disk full): the blobs are as before, and nothing may refer to them. `blobs` stay alive until it
  // returns.
  virtual async::Task<absl::Status> Save(std::vector<EncodedBlob*> blobs) = 0;

  // Frees what processes that ended have left without a row in the migrated `database`. Returns the bytes. Repeatable.
  virtual async::Task<absl::StatusOr<int64_t>> Reclaim(sql::Database& database) = 0;

  // Chunk `index`, decompressed; the hash is checked where a message has only one. DataLoss if it is damaged or its
  // file is missing, NotFound if there is no such chunk, kUnavailable if the file can't be read now.
  async::Task<absl::StatusOr<std::string>> ReadChunk(sql::Transaction& tx, std::string sha256, int64_t index);
  // The whole message, its hash checked. DataLoss if it does not match.
  async::Task<absl::StatusOr<std::string>> ReadAll(sql::Transaction& tx, std::string sha256);

 private:
  // The stored form of a chunk. May block: called on the database's executor.
  virtual absl::StatusOr<std::string> ReadPlaced(const Place& place, int64_t index) = 0;
};

// Everything in chunk rows, committed with the rest: for databases that other hosts share.
std::unique_ptr<Store> MakeRowStore();

}  // namespace poststelle::blob
