#include "libs/secrets/private_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "libs/base/ids.h"
#include "libs/base/sv.h"

namespace poststelle::secrets {
namespace {

constexpr size_t kMaxFileBytes = 64 << 10;

absl::Status Errno(const std::string& path, std::string_view doing) {
  return absl::FailedPreconditionError(absl::StrCat(path, ": can't ", Av(doing), ": ", std::strerror(errno)));
}

// The entry of a new file in its folder is durable only after this: a sealed password must not outlive its key.
absl::Status SyncFolderOf(const std::string& path) {
  const std::string folder = FolderOf(path);
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return Errno(folder, "be opened");
  const bool synced = fsync(fd) == 0;
  const int error = errno;
  close(fd);
  errno = error;
  return synced ? absl::OkStatus() : Errno(folder, "be synced");
}

// A file of ours that only we may read; or one given to us (Kubernetes mounts secrets as root's, readable by the pod's
// group), that others can neither read nor change.
bool IsPrivate(const struct stat& info) {
  const bool given = info.st_uid != geteuid();
  return (info.st_mode & (given ? 0037 : 0077)) == 0;
}

int64_t Nanoseconds(const timespec& time) { return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec; }

FileStamp Stamp(const struct stat& info) {
  FileStamp stamp;
  stamp.device = info.st_dev;
  stamp.inode = info.st_ino;
  stamp.size = info.st_size;
  stamp.modified_ns = Nanoseconds(info.st_mtim);
  stamp.changed_ns = Nanoseconds(info.st_ctim);
  return stamp;
}

std::string RealPath(const std::string& path) {
  char real[PATH_MAX];
  return realpath(path.c_str(), real) == nullptr ? path : std::string(real);
}

bool WriteAll(int fd, std::string_view content) {
  while (!content.empty()) {
    const ssize_t n = write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    content.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

}  // namespace

std::string FolderOf(const std::string& path) {
  const std::string real = RealPath(path);
  const size_t slash = real.find_last_of('/');
  return slash == std::string::npos ? "." : real.substr(0, slash + 1);
}

FileStamp StampOf(const std::string& path) {
  struct stat info{};
  return stat(path.c_str(), &info) == 0 ? Stamp(info) : FileStamp();
}

absl::Status WriteSecretFile(const std::string& path, std::string_view content) {
  const std::string temporary = absl::StrCat(path, ".", RandomId());
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return Errno(path, "be created");
  const bool written = WriteAll(fd, content) && fsync(fd) == 0;
  close(fd);
  // link() fails if somebody was faster; then theirs counts.
  const bool linked = written && link(temporary.c_str(), path.c_str()) == 0;
  const int error = errno;
  unlink(temporary.c_str());
  errno = error;
  if (!written || (!linked && error != EEXIST)) return Errno(path, "be written");
  return SyncFolderOf(path);
}

absl::Status ReplaceSecretFile(const std::string& path, std::string_view content) {
  const std::string real = RealPath(path);
  struct stat old{};
  if (stat(real.c_str(), &old) != 0) return Errno(path, "be replaced");
  const std::string temporary = absl::StrCat(real, ".", RandomId());
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  bool done = fd >= 0;
  // The owner comes before the mode: another owner's bits would be dropped with the change.
  if (done && (old.st_uid != geteuid() || old.st_gid != getegid())) done = fchown(fd, old.st_uid, old.st_gid) == 0;
  done = done && fchmod(fd, old.st_mode & 0777) == 0 && WriteAll(fd, content) && fsync(fd) == 0;
  int error = errno;
  if (fd >= 0) close(fd);
  if (done) {
    done = rename(temporary.c_str(), real.c_str()) == 0;
    error = errno;
  }
  if (done) return SyncFolderOf(real);
  if (fd >= 0) unlink(temporary.c_str());
  errno = error;
  const absl::Status failed = Errno(path, "be replaced");
  // EBUSY: the file itself is a mount.
  const bool denied = error == EROFS || error == EACCES || error == EPERM || error == EBUSY;
  return denied ? absl::PermissionDeniedError(failed.message()) : failed;
}

absl::StatusOr<std::string> ReadSecretFile(const std::string& path, FileStamp* stamp) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ENOENT) return absl::NotFoundError(absl::StrCat(path, " does not exist"));
    return Errno(path, "be read");
  }
  struct stat info{};
  std::string content;
  absl::Status status;
  if (fstat(fd, &info) != 0) {
    status = Errno(path, "be read");
  } else if (!IsPrivate(info)) {
    status = absl::FailedPreconditionError(
        absl::StrCat(path, " holds a secret and others may read it; run: chmod 600 ", path));
  } else if (static_cast<size_t>(info.st_size) > kMaxFileBytes) {
    status = absl::FailedPreconditionError(absl::StrCat(path, " is too large for what it should hold"));
  } else {
    content.resize(static_cast<size_t>(info.st_size));
    const ssize_t got = read(fd, content.data(), content.size());
    if (got < 0) status = Errno(path, "be read");
    content.resize(got < 0 ? 0 : static_cast<size_t>(got));
  }
  close(fd);
  if (!status.ok()) return status;
  if (stamp != nullptr) *stamp = Stamp(info);
  return content;
}

}  // namespace poststelle::secrets
