// The file of keys: lines "key <id> <64 hex digits>", the first one encrypts, all decrypt; "#" starts a comment line.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "libs/base/secret_string.h"
#include "libs/secrets/private_file.h"

namespace poststelle::secrets {

struct Key {
  std::string id;
  SecretString bytes;  // 32
};

// The keys of the file in order, at least one. kNotFound where there is no file; other errors name the file, the line
// and the fix. `stamp`, if given, gets the stamp of what was read.
absl::StatusOr<std::vector<Key>> LoadKeys(const std::string& path, FileStamp* stamp = nullptr);

// LoadKeys; where there is no file, it is made first with one random key.
absl::StatusOr<std::vector<Key>> LoadOrCreateKeys(const std::string& path, FileStamp* stamp = nullptr);

// Changes the file while services read it. One at a time over all processes: holds a lock on the file's folder for as
// long as it lives, which the end of the process releases in any case. Not thread-safe.
class KeyFileEditor {
 public:
  // kFailedPrecondition if another editor is at work.
  static absl::StatusOr<std::unique_ptr<KeyFileEditor>> Open(const std::string& path);
  ~KeyFileEditor();
  KeyFileEditor(const KeyFileEditor&) = delete;
  KeyFileEditor& operator=(const KeyFileEditor&) = delete;

  const std::vector<std::string>& ids() const { return ids_; }
  // A name for a key that is made at `now`: the day and a random part. Of no use until AddFirst.
  static std::string NewId(absl::Time now);
  // A new random key becomes the first one. kPermissionDenied where the file can't be replaced; it is unchanged then.
  absl::Status AddFirst(const std::string& id);
  // Takes the lines of these keys out; never all of them. Errors as AddFirst.
  absl::Status Remove(const std::vector<std::string>& ids);

 private:
  KeyFileEditor(std::string path, int folder) : path_(std::move(path)), folder_(folder) {}
  absl::Status Reload();
  const std::string path_;
  const int folder_;  // descriptor that holds the lock
  std::vector<std::string> ids_;
};

}  // namespace poststelle::secrets
