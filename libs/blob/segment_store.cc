#include "libs/blob/segment_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "libs/base/status_macros.h"
#include "libs/base/sv.h"

namespace poststelle::blob {
namespace {

constexpr size_t kLengthBytes = 4;
constexpr std::string_view kSegmentEnding = ".raw";
constexpr std::string_view kLockEnding = ".lock";
// A publication that failed is tried again with the same bytes: so many are found where they lie already.
constexpr size_t kRemembered = 1024;

// An open file, or none.
class File {
 public:
  File() = default;
  explicit File(int fd) : fd_(fd) {}
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  File& operator=(File&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  int fd() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

std::string ToLength(size_t size) {
  return {static_cast<char>(size >> 24), static_cast<char>(size >> 16), static_cast<char>(size >> 8),
          static_cast<char>(size)};
}
int64_t FromLength(const std::array<unsigned char, kLengthBytes>& b) {
  return int64_t{b[0]} << 24 | int64_t{b[1]} << 16 | int64_t{b[2]} << 8 | b[3];
}

// Appends to a file in whole blocks from memory of its own, as O_DIRECT asks for. One group of messages at a time.
class BlockWriter {
 public:
  static constexpr size_t kBlock = 4096;

  // `offset` is a multiple of the block.
  void Begin(int fd, int64_t offset) {
    fd_ = fd;
    offset_ = offset;
    used_ = 0;
  }
  // 0 or errno.
  int Add(std::string_view bytes) {
    while (!bytes.empty()) {
      const size_t part = std::min(bytes.size(), kRoom - used_);
      std::memcpy(room_.get() + used_, bytes.data(), part);
      used_ += part;
      bytes.remove_prefix(part);
      if (used_ < kRoom) continue;
      if (const int error = Write(); error != 0) return error;
    }
    return 0;
  }
  // Writes what is left, filled up with zeros. 0 or errno.
  int End() {
    const size_t whole = (used_ + kBlock - 1) / kBlock * kBlock;
    std::memset(room_.get() + used_, 0, whole - used_);
    used_ = whole;
    return Write();
  }
  int64_t offset() const { return offset_; }

 private:
  static constexpr size_t kRoom = 1 << 20;
  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };

  int Write() {
    size_t at = 0;
    while (at < used_) {
      const ssize_t written = pwrite(fd_, room_.get() + at, used_ - at, offset_);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return errno;
      // The disk is full or a limit is reached: half a block can't be continued, and the next write will say why.
      if (written % static_cast<ssize_t>(kBlock) != 0) return ENOSPC;
      if (written == 0) return EIO;
      at += static_cast<size_t>(written);
      offset_ += written;
    }
    used_ = 0;
    return 0;
  }

  const std::unique_ptr<char, Free> room_{static_cast<char*>(std::aligned_alloc(kBlock, kRoom))};
  size_t used_ = 0;
  int fd_ = -1;
  int64_t offset_ = 0;
};

// Exactly `size` bytes. False at the end of the file or an error, then told by errno (0: the end).
bool ReadFully(int fd, char* to, size_t size, int64_t offset) {
  while (size > 0) {
    const ssize_t got = pread(fd, to, size, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = 0;
    if (got <= 0) return false;
    to += got;
    size -= static_cast<size_t>(got);
    offset += got;
  }
  return true;
}

class SegmentStore : public Store {
 public:
  SegmentStore(std::string directory, std::string owner, int64_t segment_bytes)
      : path_(std::move(directory)), owner_(std::move(owner)), segment_bytes_(segment_bytes), runtime_(1) {}

  absl::Status Open() {
    if (mkdir(path_.c_str(), 0700) != 0 && errno != EEXIST) return CantUse(errno);
    directory_ = File(open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory_) return CantUse(errno);
    // Whoever reclaims may take a new lock file, still unlocked, for one that was left behind.
    const std::string name = owner_ + std::string(kLockEnding);
    struct stat now{};
    do {
      lock_ = File(openat(directory_.fd(), name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
      if (!lock_ || flock(lock_.fd(), LOCK_EX) != 0 || fstat(lock_.fd(), &now) != 0) return CantUse(errno);
    } while (now.st_nlink == 0);
    return absl::OkStatus();
  }

  async::Task<absl::Status> Save(std::vector<EncodedBlob*> blobs) override {
    std::erase_if(blobs, [](const EncodedBlob* blob) { return blob->chunks.empty(); });
    if (blobs.empty()) co_return absl::OkStatus();
    auto request = std::make_shared<Request>();
    request->blobs = std::move(blobs);
    {
      const std::lock_guard lock(mutex_);
      waiting_.push_back(request);
    }
    co_await async::RunOn(runtime_.executor(), Serve(request));
    co_return request->result;
  }

  async::Task<absl::StatusOr<int64_t>> Reclaim(sql::Database& database) override {
    absl::StatusOr<int64_t> freed = int64_t{0};
    co_await async::RunOn(runtime_.executor(), ReclaimInto(database, freed));
    co_return freed;
  }

 private:
  // What one Save() submitted. `finished` and what it says are touched on the store's thread until it returns.
  struct Request {
    std::vector<EncodedBlob*> blobs;
    absl::Status result;
    bool finished = false;
  };
  using Group = std::vector<std::shared_ptr<Request>>;

  async::Task<void> ReclaimInto(sql::Database& database, absl::StatusOr<int64_t>& freed) {
    freed = co_await ReclaimAll(database);
  }

  async::Task<absl::StatusOr<int64_t>> ReclaimAll(sql::Database& database) {
    int64_t freed = 0;
    PS_CO_ASSIGN_OR_RETURN(std::vector<std::string> names, List());
    for (const std::string& name : names) {
      if (!name.ends_with(kLockEnding) || name == owner_ + std::string(kLockEnding)) continue;
      File lock(openat(directory_.fd(), name.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
      if (!lock || flock(lock.fd(), LOCK_EX | LOCK_NB) != 0) continue;  // it lives, or somebody else was first
      const std::string prefix = name.substr(0, name.size() - kLockEnding.size()) + "-";
      std::vector<std::string> segments;
      for (const std::string& segment : names) {
        if (segment.starts_with(prefix) && segment.ends_with(kSegmentEnding)) segments.push_back(segment);
      }
      PS_CO_ASSIGN_OR_RETURN(int64_t of_it, co_await ReclaimSegments(database, std::move(segments)));
      freed += of_it;
      unlinkat(directory_.fd(), name.c_str(), 0);
    }
    co_return freed;
  }

  absl::Status CantUse(int error) const {
    return absl::FailedPreconditionError(
        absl::StrCat("can't keep raw messages in ", path_, ": ", std::strerror(error)));
  }
  absl::Status CantWrite(const char* what, int error) const {
    return absl::UnavailableError(
        absl::StrCat("raw messages can't be ", what, " in ", path_, ": ", std::strerror(error)));
  }

  // Whoever gets the thread first does the work of all who wait.
  async::Task<void> Serve(std::shared_ptr<Request> request) {
    if (request->finished) co_return;
    Group group;
    {
      const std::lock_guard lock(mutex_);
      group.swap(waiting_);
    }
    const absl::Status result = Append(group);
    for (const std::shared_ptr<Request>& each : group) {
      each->result = result;
      each->finished = true;
    }
  }

  absl::Status Append(const Group& group) {
    if (!segment_ || end_ >= segment_bytes_) PS_RETURN_IF_ERROR(NextSegment());
    std::vector<std::pair<EncodedBlob*, Place>> placed;
    writer_.Begin(segment_.fd(), end_);
    int64_t at = end_;
    int error = 0;
    for (const std::shared_ptr<Request>& request : group) {
      for (EncodedBlob* blob : request->blobs) {
        if (auto it = remembered_.find(blob->sha256); it != remembered_.end()) {
          placed.emplace_back(blob, it->second);
          continue;
        }
        Place place{segment_name_, at, 0};
        for (const std::string& chunk : blob->chunks) {
          if (error == 0) error = writer_.Add(ToLength(chunk.size()));
          if (error == 0) error = writer_.Add(chunk);
          place.bytes += static_cast<int64_t>(kLengthBytes + chunk.size());
        }
        at += place.bytes;
        placed.emplace_back(blob, std::move(place));
      }
    }
    if (at > end_) {
      if (error == 0) error = writer_.End();
      if (error != 0) {
        // What was written of it is overwritten the next time.
        if (ftruncate(segment_.fd(), end_) != 0) segment_ = File();
        return CantWrite("written", error);
      }
      if (fdatasync(segment_.fd()) != 0) {
        // Nobody knows what this file holds behind `end_`.
        error = errno;
        segment_ = File();
        return CantWrite("made durable", error);
      }
      end_ = writer_.offset();
    }
    for (auto& [blob, place] : placed) {
      Remember(blob->sha256, place);
      blob->place = std::move(place);
      blob->chunks = {};
    }
    return absl::OkStatus();
  }

  void Remember(const std::string& sha256, const Place& place) {
    if (!remembered_.emplace(sha256, place).second) return;
    order_.push_back(sha256);
    if (order_.size() <= kRemembered) return;
    remembered_.erase(order_.front());
    order_.pop_front();
  }

  absl::Status NextSegment() {
    const std::string name = absl::StrCat(owner_, "-", ++number_, Av(kSegmentEnding));
    const auto create = [&](int how) {
      return openat(directory_.fd(), name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW | how, 0600);
    };
    // Straight to the disk: raw mail is written once and rarely read, so copying it through the page cache costs twice.
    // Some file systems refuse that, and may have made the file by then.
    File next(create(O_DIRECT));
    if (!next && errno == EINVAL) {
      unlinkat(directory_.fd(), name.c_str(), 0);
      next = File(create(0));
    }
    if (!next) return CantWrite("written", errno);
    // Its name has to outlive a crash as well.
    if (fsync(directory_.fd()) != 0) return CantWrite("made durable", errno);
    segment_ = std::move(next);
    segment_name_ = name;
    end_ = 0;
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> ReadPlaced(const Place& place, int64_t index) override {
    const auto lost = [&](std::string_view what) {
      return absl::DataLossError(
          absl::StrCat("the file ", place.segment, " in ", path_, ", which holds the raw message, is ", Av(what)));
    };
    const auto failed = [&]() -> absl::Status {
      if (errno == 0 || errno == EIO) return lost("damaged");
      return absl::UnavailableError(
          absl::StrCat("can't read the raw message from ", place.segment, " in ", path_, ": ", std::strerror(errno)));
    };
    if (place.segment.find('/') != std::string::npos) return lost("damaged");
    const File file(openat(directory_.fd(), place.segment.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    if (!file && errno == ENOENT) return lost("missing");
    if (!file) return failed();
    int64_t at = place.offset;
    const int64_t end = place.offset + place.bytes;
    for (int64_t i = 0; at + static_cast<int64_t>(kLengthBytes) <= end; ++i) {
      std::array<unsigned char, kLengthBytes> length{};
      if (!ReadFully(file.fd(), reinterpret_cast<char*>(length.data()), kLengthBytes, at)) return failed();
      at += static_cast<int64_t>(kLengthBytes);
      const int64_t size = FromLength(length);
      if (size > end - at) break;
      if (i < index) {
        at += size;
        continue;
      }
      std::string chunk(static_cast<size_t>(size), '\0');
      if (!ReadFully(file.fd(), chunk.data(), chunk.size(), at)) return failed();
      return chunk;
    }
    return lost("damaged");
  }

  absl::StatusOr<std::vector<std::string>> List() const {
    std::vector<std::string> names;
    const std::unique_ptr<DIR, decltype(&closedir)> listing(opendir(path_.c_str()), closedir);
    if (listing == nullptr) return CantUse(errno);
    while (const dirent* entry = readdir(listing.get())) names.emplace_back(entry->d_name);
    return names;
  }

  // `segments` of a process that has ended: nobody commits a row that refers to them any more.
  async::Task<absl::StatusOr<int64_t>> ReclaimSegments(sql::Database& database, std::vector<std::string> segments) {
    std::map<std::string, int64_t> ends;
    sql::Work work = [&](sql::Transaction& tx) -> async::Task<absl::Status> {
      ends.clear();
      for (const std::string& segment : segments) {
        std::vector<sql::Value> key{segment};
        PS_CO_ASSIGN_OR_RETURN(sql::Result last,
                               co_await tx.Execute("SELECT segment_offset + segment_bytes FROM raw_message WHERE "
                                                   "segment = $1 ORDER BY segment_offset DESC LIMIT 1",
                                                   std::move(key)));
        ends[segment] = last.rows.empty() ? 0 : last.rows[0].Int(0);
      }
      co_return absl::OkStatus();
    };
    PS_CO_RETURN_IF_ERROR(co_await database.Read(work));
    int64_t freed = 0;
    for (const auto& [name, end] : ends) {
      const File file(openat(directory_.fd(), name.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
      struct stat now{};
      if (!file || fstat(file.fd(), &now) != 0 || now.st_size < end) continue;  // reading will tell
      const int done = end == 0 ? unlinkat(directory_.fd(), name.c_str(), 0) : ftruncate(file.fd(), end);
      if (done != 0) co_return CantWrite("reclaimed", errno);
      freed += now.st_size - end;
    }
    co_return freed;
  }

  const std::string path_;
  const std::string owner_;
  const int64_t segment_bytes_;
  File directory_;
  File lock_;
  std::mutex mutex_;
  Group waiting_;  // guarded by mutex_
  // On the store's thread only:
  File segment_;
  std::string segment_name_;
  int number_ = 0;
  int64_t end_ = 0;  // of what is durable; a multiple of a block
  BlockWriter writer_;
  std::unordered_map<std::string, Place> remembered_;
  std::deque<std::string> order_;  // of what is remembered, oldest first
  async::Runtime runtime_;         // last: its thread ends before what it uses
};

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> OpenSegmentStore(std::string directory, std::string owner,
                                                        int64_t segment_bytes) {
  auto store = std::make_unique<SegmentStore>(std::move(directory), std::move(owner), segment_bytes);
  PS_RETURN_IF_ERROR(store->Open());
  return store;
}

}  // namespace poststelle::blob
