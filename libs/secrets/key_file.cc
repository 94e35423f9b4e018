#include "libs/secrets/key_file.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "libs/base/ids.h"
#include "libs/base/status_macros.h"

namespace poststelle::secrets {
namespace {

constexpr size_t kKeyBytes = 32;

bool IsComment(absl::string_view line) { return absl::StripAsciiWhitespace(line).empty() || line[0] == '#'; }

std::vector<absl::string_view> WordsOf(absl::string_view line) {
  return absl::StrSplit(absl::StripAsciiWhitespace(line), ' ', absl::SkipEmpty());
}

absl::StatusOr<SecretString> NewLine(const std::string& id) {
  std::string bytes(kKeyBytes, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(bytes.size())) != 1) {
    return absl::InternalError("the random source failed");
  }
  std::string hex = Hex(bytes);
  SecretString line(absl::StrCat("key ", id, " ", hex, "\n"));
  OPENSSL_cleanse(bytes.data(), bytes.size());
  OPENSSL_cleanse(hex.data(), hex.size());
  return line;
}

absl::StatusOr<std::vector<Key>> Parse(const std::string& path, const SecretString& content) {
  std::vector<Key> keys;
  int number = 0;
  const std::string_view text = content.Reveal();
  for (absl::string_view line : absl::StrSplit(absl::string_view(text.data(), text.size()), '\n')) {
    ++number;
    if (IsComment(line)) continue;
    const std::vector<absl::string_view> words = WordsOf(line);
    const bool hex = words.size() == 3 && words[2].size() == 2 * kKeyBytes &&
                     words[2].find_first_not_of("0123456789abcdef") == absl::string_view::npos;
    if (!hex || words[0] != "key") {
      return absl::FailedPreconditionError(
          absl::StrCat(path, ":", number, ": expected \"key <id> <64 hexadecimal digits>\""));
    }
    Key key{std::string(words[1]), SecretString(absl::HexStringToBytes(words[2]))};
    if (std::any_of(keys.begin(), keys.end(), [&key](const Key& other) { return other.id == key.id; })) {
      return absl::FailedPreconditionError(
          absl::StrCat(path, ":", number, ": a key named ", key.id, " is there already"));
    }
    keys.push_back(std::move(key));
  }
  if (keys.empty()) return absl::FailedPreconditionError(absl::StrCat(path, " holds no key"));
  return keys;
}

}  // namespace

absl::StatusOr<std::vector<Key>> LoadKeys(const std::string& path, FileStamp* stamp) {
  PS_ASSIGN_OR_RETURN(std::string content, ReadSecretFile(path, stamp));
  return Parse(path, SecretString(std::move(content)));
}

absl::StatusOr<std::vector<Key>> LoadOrCreateKeys(const std::string& path, FileStamp* stamp) {
  absl::StatusOr<std::vector<Key>> keys = LoadKeys(path, stamp);
  if (!absl::IsNotFound(keys.status())) return keys;
  PS_ASSIGN_OR_RETURN(const SecretString line, NewLine(RandomId().substr(0, 8)));
  PS_RETURN_IF_ERROR(WriteSecretFile(path, line.Reveal()));
  return LoadKeys(path, stamp);
}

absl::StatusOr<std::unique_ptr<KeyFileEditor>> KeyFileEditor::Open(const std::string& path) {
  const std::string folder = FolderOf(path);
  // The folder, because the file itself is replaced; and it needs no right to write.
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return absl::FailedPreconditionError(absl::StrCat(folder, ": ", std::strerror(errno)));
  std::unique_ptr<KeyFileEditor> editor(new KeyFileEditor(path, fd));
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("another command is at work on the keys in ", folder, "; run this one when it has ended"));
  }
  PS_RETURN_IF_ERROR(editor->Reload());
  return editor;
}

KeyFileEditor::~KeyFileEditor() { close(folder_); }

absl::Status KeyFileEditor::Reload() {
  PS_ASSIGN_OR_RETURN(const std::vector<Key> keys, LoadKeys(path_));
  ids_.clear();
  for (const Key& key : keys) ids_.push_back(key.id);
  return absl::OkStatus();
}

std::string KeyFileEditor::NewId(absl::Time now) {
  return absl::StrCat(absl::FormatTime("%Y%m%d", now, absl::UTCTimeZone()), "-", RandomId().substr(0, 8));
}

absl::Status KeyFileEditor::AddFirst(const std::string& id) {
  PS_ASSIGN_OR_RETURN(std::string content, ReadSecretFile(path_));
  const SecretString old(std::move(content));
  PS_ASSIGN_OR_RETURN(const SecretString line, NewLine(id));
  // Comments at the top stay there.
  const std::string_view text = old.Reveal();
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find('\n', at), text.size());
    if (!IsComment(absl::string_view(text.data() + at, end - at))) break;
    at = std::min(end + 1, text.size());
  }
  std::string next;
  next.reserve(text.size() + line.Reveal().size());  // no copy is left behind by growing
  next.append(text.substr(0, at)).append(line.Reveal()).append(text.substr(at));
  const SecretString replaced(std::move(next));
  PS_RETURN_IF_ERROR(ReplaceSecretFile(path_, replaced.Reveal()));
  return Reload();
}

absl::Status KeyFileEditor::Remove(const std::vector<std::string>& ids) {
  PS_ASSIGN_OR_RETURN(std::string content, ReadSecretFile(path_));
  const SecretString old(std::move(content));
  const std::string_view text = old.Reveal();
  std::string next;
  next.reserve(text.size());
  size_t left = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    const absl::string_view line(text.data() + at, end - at);
    const std::vector<absl::string_view> words = WordsOf(line);
    const bool key = !IsComment(line) && words.size() > 1;
    const bool goes = key && std::find(ids.begin(), ids.end(), words[1]) != ids.end();
    if (!goes) next.append(text.substr(at, end - at));
    left += key && !goes;
    at = end;
  }
  const SecretString replaced(std::move(next));
  if (left == 0) return absl::InvalidArgumentError("a key file without a key would seal nothing any more");
  PS_RETURN_IF_ERROR(ReplaceSecretFile(path_, replaced.Reveal()));
  return Reload();
}

}  // namespace poststelle::secrets
