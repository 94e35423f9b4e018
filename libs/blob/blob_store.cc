#include "libs/blob/blob_store.h"

#include <zstd.h>

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "libs/base/ids.h"
#include "libs/base/status_macros.h"
#include "libs/blob/unpack_base64.h"
#include "libs/sql/insert.h"

namespace poststelle::blob {
namespace {

constexpr int kPlain = 0;
constexpr int kZstd = 1;
constexpr int kUnpackedZstd = 2;  // base64 decoded (unpack_base64.h), then zstd
constexpr int kLevel = 1;
// What was base64 is mostly compressed already: looked at more quickly, it ends up 1 % larger.
constexpr int kUnpackedLevel = -5;

absl::Status Damaged(const std::string& sha256) {
  return absl::DataLossError(absl::StrCat("the stored raw message ", Hex(sha256), " is damaged"));
}

absl::Status NoChunk(const std::string& sha256, int64_t index) {
  return absl::NotFoundError(absl::StrCat("raw message ", Hex(sha256), " has no chunk ", index));
}

// Keeps the working memory (half a megabyte) and the room for a chunk from one call to the next: making them anew costs
// as much as compressing. One a thread.
class Compressor {
 public:
  // Empty if it can't be compressed.
  std::string Compress(std::string_view chunk, int level) {
    room_.resize(std::max(room_.size(), ZSTD_compressBound(chunk.size())));
    const size_t size =
        ZSTD_compressCCtx(context_.get(), room_.data(), room_.size(), chunk.data(), chunk.size(), level);
    return ZSTD_isError(size) ? std::string() : room_.substr(0, size);
  }

 private:
  std::unique_ptr<ZSTD_CCtx, decltype(&ZSTD_freeCCtx)> context_{ZSTD_createCCtx(), ZSTD_freeCCtx};
  std::string room_;
};

}  // namespace

EncodedBlob Encode(std::string_view raw) {
  EncodedBlob blob;
  blob.sha256 = Sha256(raw);
  blob.size = static_cast<int64_t>(raw.size());
  blob.chunk_count = static_cast<int64_t>((raw.size() + kChunkBytes - 1) / kChunkBytes);
  thread_local Compressor compressor;
  thread_local std::string unpacked;
  // One codec for all chunks; the second one of a mail tells more about an attachment than the first.
  const std::string_view sample = raw.substr(raw.size() > kChunkBytes ? kChunkBytes : 0, kChunkBytes);
  const bool base64 = UnpackBase64(sample, unpacked);
  size_t stored = 0;
  bool usable = true;
  for (size_t at = 0; at < raw.size() && usable; at += kChunkBytes) {
    std::string_view chunk = raw.substr(at, kChunkBytes);
    if (base64) {
      if (raw.size() > kChunkBytes) UnpackBase64(chunk, unpacked, true);
      chunk = unpacked;
    }
    blob.chunks.push_back(compressor.Compress(chunk, base64 ? kUnpackedLevel : kLevel));
    usable = !blob.chunks.back().empty();
    stored += blob.chunks.back().size();
  }
  // Compression has to save a tenth to be worth the reader's time.
  const bool pays = usable && stored < raw.size() - raw.size() / 10;
  blob.codec = !pays ? kPlain : base64 ? kUnpackedZstd : kZstd;
  if (pays) return blob;
  blob.chunks.clear();
  for (size_t at = 0; at < raw.size(); at += kChunkBytes) blob.chunks.emplace_back(raw.substr(at, kChunkBytes));
  return blob;
}

void AppendPut(std::vector<const EncodedBlob*> blobs, std::vector<sql::Statement>& statements) {
  static const sql::RowInsert kMessage(
      "INSERT INTO raw_message (sha256, size, codec, chunks, segment, segment_offset, segment_bytes) VALUES", 7,
      "ON CONFLICT DO NOTHING");
  static const sql::RowInsert kChunk("INSERT INTO raw_chunk (sha256, idx, bytes) VALUES", 3, "ON CONFLICT DO NOTHING");
  std::sort(blobs.begin(), blobs.end(), [](const auto* a, const auto* b) { return a->sha256 < b->sha256; });
  std::vector<std::vector<sql::Value>> messages, chunks;
  for (const EncodedBlob* blob : blobs) {
    std::vector<sql::Value>& message = messages.emplace_back();
    message.reserve(7);
    message.emplace_back(sql::Blob{blob->sha256});
    message.emplace_back(blob->size);
    message.emplace_back(int64_t{blob->codec});
    message.emplace_back(blob->chunk_count);
    message.resize(7);  // NULL
    if (blob->place) {
      message[4] = blob->place->segment;
      message[5] = blob->place->offset;
      message[6] = blob->place->bytes;
    }
    for (size_t i = 0; i < blob->chunks.size(); ++i) {
      std::vector<sql::Value>& row = chunks.emplace_back();  // an initializer list would copy the bytes twice
      row.reserve(3);
      row.emplace_back(sql::Blob{blob->sha256});
      row.emplace_back(static_cast<int64_t>(i));
      row.emplace_back(sql::Blob{blob->chunks[i]});
    }
  }
  kMessage.Append(std::move(messages), statements);
  kChunk.Append(std::move(chunks), statements);
}

async::Task<absl::Status> Put(sql::Transaction& tx, const EncodedBlob& blob) {
  std::vector<sql::Statement> statements;
  AppendPut({&blob}, statements);
  co_return (co_await tx.ExecuteAll(std::move(statements))).status();
}

async::Task<absl::StatusOr<BlobInfo>> Stat(sql::Transaction& tx, const std::string& sha256) {
  std::vector<sql::Value> key{sql::Blob{sha256}};
  PS_CO_ASSIGN_OR_RETURN(
      sql::Result found,
      co_await tx.Execute("SELECT size, codec, chunks, segment, segment_offset, segment_bytes FROM raw_message WHERE "
                          "sha256 = $1",
                          std::move(key)));
  if (found.rows.empty()) co_return absl::NotFoundError(absl::StrCat("no raw message ", Hex(sha256), " is stored"));
  const sql::Row& row = found.rows[0];
  BlobInfo info;
  info.size = row.Int(0);
  info.codec = static_cast<int>(row.Int(1));
  info.chunks = row.Int(2);
  if (!row.IsNull(3)) info.place = Place{row.Text(3), row.Int(4), row.Int(5)};
  co_return info;
}

async::Task<absl::StatusOr<std::string>> Store::ReadChunk(sql::Transaction& tx, std::string sha256, int64_t index) {
  PS_CO_ASSIGN_OR_RETURN(BlobInfo info, co_await Stat(tx, sha256));
  if (index < 0 || index >= info.chunks) co_return NoChunk(sha256, index);
  std::string stored;
  if (info.place) {
    PS_CO_ASSIGN_OR_RETURN(stored, ReadPlaced(*info.place, index));
  } else {
    std::vector<sql::Value> key{sql::Blob{sha256}, index};
    PS_CO_ASSIGN_OR_RETURN(
        sql::Result found,
        co_await tx.Execute("SELECT bytes FROM raw_chunk WHERE sha256 = $1 AND idx = $2", std::move(key)));
    if (found.rows.empty()) co_return NoChunk(sha256, index);
    stored = found.rows[0].Text(0);
  }
  if (info.codec != kPlain) {
    // A chunk with little base64 in it is a bit longer in its unpacked form.
    std::string out(kChunkBytes + kMaxUnpackedGrowth, '\0');
    const size_t size = ZSTD_decompress(out.data(), out.size(), stored.data(), stored.size());
    if (ZSTD_isError(size)) co_return Damaged(sha256);
    out.resize(size);
    stored = std::move(out);
  }
  if (info.codec == kUnpackedZstd) {
    std::string text;
    if (!RepackBase64(stored, kChunkBytes, text)) co_return Damaged(sha256);
    stored = std::move(text);
  } else if (info.codec != kPlain && info.codec != kZstd) {
    co_return absl::UnimplementedError(
        absl::StrCat("raw message ", Hex(sha256), " was stored by a newer version, in the form ", info.codec));
  }
  if (info.chunks == 1 && Sha256(stored) != sha256) co_return Damaged(sha256);
  co_return stored;
}

async::Task<absl::StatusOr<std::string>> Store::ReadAll(sql::Transaction& tx, std::string sha256) {
  PS_CO_ASSIGN_OR_RETURN(BlobInfo info, co_await Stat(tx, sha256));
  std::string raw;
  for (int64_t i = 0; i < info.chunks; ++i) {
    PS_CO_ASSIGN_OR_RETURN(std::string chunk, co_await ReadChunk(tx, sha256, i));
    raw.append(chunk);
  }
  if (Sha256(raw) != sha256) co_return Damaged(sha256);
  co_return raw;
}

namespace {

class RowStore : public Store {
 public:
  async::Task<absl::Status> Save(std::vector<EncodedBlob*>) override { co_return absl::OkStatus(); }
  async::Task<absl::StatusOr<int64_t>> Reclaim(sql::Database&) override { co_return int64_t{0}; }

 private:
  absl::StatusOr<std::string> ReadPlaced(const Place& place, int64_t) override {
    return absl::UnavailableError(absl::StrCat("the raw message lies in the file ", place.segment,
                                               " beside another database, which is not within reach here"));
  }
};

}  // namespace

std::unique_ptr<Store> MakeRowStore() { return std::make_unique<RowStore>(); }

}  // namespace poststelle::blob
