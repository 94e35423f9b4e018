// Files that hold secrets: read only where nobody else may, written whole or not at all.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace poststelle::secrets {

// Tells whether a file is still the one that was read, or was replaced or rewritten. The default is of no file.
struct FileStamp {
  dev_t device = 0;
  ino_t inode = 0;
  off_t size = 0;
  int64_t modified_ns = 0;
  int64_t changed_ns = 0;
  bool operator==(const FileStamp&) const = default;
};

// Of what is at `path` now, behind all symbolic links; no file's if there is none that we may see.
FileStamp StampOf(const std::string& path);

// The whole of `path`, at most 64 KiB. kNotFound where there is none; kFailedPrecondition with the fix if others may
// read it, or with what stands in the way. `stamp`, if given, gets the stamp of what was read.
absl::StatusOr<std::string> ReadSecretFile(const std::string& path, FileStamp* stamp = nullptr);

// Makes `path` (mode 0600) durably. If somebody else made it at the same moment, theirs stays and this is OK.
absl::Status WriteSecretFile(const std::string& path, std::string_view content);

// Replaces the file that `path` leads to, durably, by one of the same owner and mode: readers see the old content or
// the new one, also after a crash. kPermissionDenied where the folder can't be written or the file not be replaced (a
// mounted secret); then nothing was changed.
absl::Status ReplaceSecretFile(const std::string& path, std::string_view content);

// The folder of the file that `path` leads to.
std::string FolderOf(const std::string& path);

}  // namespace poststelle::secrets
