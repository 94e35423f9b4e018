#include "libs/secrets/vault.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "libs/base/ids.h"
#include "libs/base/status_macros.h"
#include "libs/base/sv.h"

namespace poststelle::secrets {
namespace {

constexpr size_t kKeyBytes = 32;
constexpr size_t kNonceBytes = 12;
constexpr size_t kTagBytes = 16;
constexpr char kVersion = '1';
constexpr size_t kMaxFileBytes = 64 << 10;

using Cipher = std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)>;

const unsigned char* Bytes(std::string_view v) { return reinterpret_cast<const unsigned char*>(v.data()); }
unsigned char* Bytes(std::string& s) { return reinterpret_cast<unsigned char*>(s.data()); }

absl::StatusOr<std::string> RandomBytes(size_t size) {
  std::string out(size, '\0');
  if (RAND_bytes(Bytes(out), static_cast<int>(size)) != 1) return absl::InternalError("the random source failed");
  return out;
}

// nonce ‖ ciphertext ‖ tag
absl::StatusOr<std::string> Encrypt(std::string_view key, std::string_view plain, std::string_view associated) {
  PS_ASSIGN_OR_RETURN(std::string nonce, RandomBytes(kNonceBytes));
  Cipher cipher(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  std::string out(plain.size(), '\0');
  std::string tag(kTagBytes, '\0');
  int written = 0;
  const bool ok =
      EVP_EncryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, Bytes(key), Bytes(nonce)) == 1 &&
      EVP_EncryptUpdate(cipher.get(), nullptr, &written, Bytes(associated), static_cast<int>(associated.size())) == 1 &&
      EVP_EncryptUpdate(cipher.get(), Bytes(out), &written, Bytes(plain), static_cast<int>(plain.size())) == 1 &&
      EVP_EncryptFinal_ex(cipher.get(), Bytes(out) + written, &written) == 1 &&
      EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_GET_TAG, kTagBytes, tag.data()) == 1;
  if (!ok) return absl::InternalError("encryption failed");
  return absl::StrCat(nonce, out, tag);
}

absl::StatusOr<std::string> Decrypt(std::string_view key, std::string_view sealed, std::string_view associated) {
  if (sealed.size() < kNonceBytes + kTagBytes) return absl::DataLossError("the sealed secret is truncated");
  const std::string_view nonce = sealed.substr(0, kNonceBytes);
  const std::string_view body = sealed.substr(kNonceBytes, sealed.size() - kNonceBytes - kTagBytes);
  std::string tag(sealed.substr(sealed.size() - kTagBytes));
  Cipher cipher(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  std::string out(body.size(), '\0');
  int written = 0;
  const bool ok =
      EVP_DecryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, Bytes(key), Bytes(nonce)) == 1 &&
      EVP_DecryptUpdate(cipher.get(), nullptr, &written, Bytes(associated), static_cast<int>(associated.size())) == 1 &&
      EVP_DecryptUpdate(cipher.get(), Bytes(out), &written, Bytes(body), static_cast<int>(body.size())) == 1 &&
      EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes, tag.data()) == 1 &&
      EVP_DecryptFinal_ex(cipher.get(), Bytes(out) + written, &written) == 1;
  if (!ok) return absl::DataLossError("the sealed secret was altered, or belongs to another record");
  return out;
}

// "<key id>:<hex of HMAC-SHA-256>" under HKDF-SHA-256(key, info = purpose) (RFC 5869). The encryption key itself is
// never used for anything else.
absl::StatusOr<std::string> HashWith(const std::string& id, std::string_view key, std::string_view message,
                                     std::string_view purpose) {
  const std::unique_ptr<EVP_PKEY_CTX, decltype(&EVP_PKEY_CTX_free)> kdf(EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, nullptr),
                                                                        EVP_PKEY_CTX_free);
  std::string derived(kKeyBytes, '\0');
  size_t size = derived.size();
  const bool ok = EVP_PKEY_derive_init(kdf.get()) == 1 && EVP_PKEY_CTX_set_hkdf_md(kdf.get(), EVP_sha256()) == 1 &&
                  EVP_PKEY_CTX_set1_hkdf_key(kdf.get(), Bytes(key), static_cast<int>(key.size())) == 1 &&
                  EVP_PKEY_CTX_add1_hkdf_info(kdf.get(), Bytes(purpose), static_cast<int>(purpose.size())) == 1 &&
                  EVP_PKEY_derive(kdf.get(), Bytes(derived), &size) == 1 && size == kKeyBytes;
  std::string mac(EVP_MAX_MD_SIZE, '\0');
  unsigned mac_size = 0;
  const bool made = ok && HMAC(EVP_sha256(), derived.data(), static_cast<int>(derived.size()), Bytes(message),
                               message.size(), Bytes(mac), &mac_size) != nullptr;
  OPENSSL_cleanse(derived.data(), derived.size());
  if (!made) return absl::InternalError("hashing failed");
  mac.resize(mac_size);
  return absl::StrCat(id, ":", Hex(mac));
}

absl::Status Errno(const std::string& path, std::string_view doing) {
  return absl::FailedPreconditionError(absl::StrCat(path, ": can't ", Av(doing), ": ", std::strerror(errno)));
}

// The entry of a new file in its folder is durable only after this: a sealed password must not outlive its key.
absl::Status SyncFolderOf(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
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

// Made whole or not at all: another process that starts at the same moment sees the same content or none.
absl::Status WriteSecretFile(const std::string& path, std::string_view content) {
  const std::string temporary = absl::StrCat(path, ".", RandomId());
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return Errno(path, "be created");
  const bool written =
      write(fd, content.data(), content.size()) == static_cast<ssize_t>(content.size()) && fsync(fd) == 0;
  close(fd);
  // link() fails if somebody was faster; then theirs counts.
  const bool linked = written && link(temporary.c_str(), path.c_str()) == 0;
  const int error = errno;
  unlink(temporary.c_str());
  errno = error;
  if (!written || (!linked && error != EEXIST)) return Errno(path, "be written");
  return SyncFolderOf(path);
}

// Identity first, so that a wrapped data key can't be used for another record either.
std::string Associated(std::string_view identity, std::string_view key_id) {
  return absl::StrCat(Av(identity), std::string(1, '\0'), Av(key_id));
}

}  // namespace

absl::StatusOr<std::string> ReadSecretFile(const std::string& path) {
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
  return content;
}

absl::StatusOr<std::unique_ptr<Vault>> Vault::OpenOrCreate(const std::string& path) {
  absl::StatusOr<std::string> content = ReadSecretFile(path);
  if (absl::IsNotFound(content.status())) {
    PS_ASSIGN_OR_RETURN(std::string key, RandomBytes(kKeyBytes));
    PS_RETURN_IF_ERROR(WriteSecretFile(path, absl::StrCat("key ", RandomId().substr(0, 8), " ", Hex(key), "\n")));
    OPENSSL_cleanse(key.data(), key.size());
    content = ReadSecretFile(path);
  }
  if (!content.ok()) return content.status();
  auto vault = std::make_unique<Vault>();
  int number = 0;
  for (absl::string_view line : absl::StrSplit(*content, '\n')) {
    ++number;
    if (absl::StripAsciiWhitespace(line).empty() || line[0] == '#') continue;
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    const bool hex = words.size() == 3 && words[2].size() == 2 * kKeyBytes &&
                     words[2].find_first_not_of("0123456789abcdef") == absl::string_view::npos;
    if (!hex || words[0] != "key") {
      return absl::FailedPreconditionError(
          absl::StrCat(path, ":", number, ": expected \"key <id> <64 hexadecimal digits>\""));
    }
    const std::string id(words[1]);
    if (!vault->keys_.emplace(id, SecretString(absl::HexStringToBytes(words[2]))).second) {
      return absl::FailedPreconditionError(absl::StrCat(path, ":", number, ": a key named ", id, " is there already"));
    }
    if (vault->first_.empty()) vault->first_ = id;
  }
  OPENSSL_cleanse(content->data(), content->size());
  if (vault->first_.empty()) return absl::FailedPreconditionError(absl::StrCat(path, " holds no key"));
  return vault;
}

absl::StatusOr<std::string> Vault::Seal(const SecretString& secret, std::string_view record_identity) const {
  PS_ASSIGN_OR_RETURN(std::string data_key, RandomBytes(kKeyBytes));
  const SecretString guard(data_key);
  const std::string associated = Associated(record_identity, first_);
  PS_ASSIGN_OR_RETURN(std::string wrapped, Encrypt(keys_.at(first_).Reveal(), data_key, associated));
  PS_ASSIGN_OR_RETURN(std::string body, Encrypt(data_key, secret.Reveal(), associated));
  OPENSSL_cleanse(data_key.data(), data_key.size());
  return absl::StrCat(std::string(1, kVersion), first_, std::string(1, '\0'), wrapped, body);
}

absl::StatusOr<SecretString> Vault::Open(std::string_view sealed, std::string_view record_identity) const {
  constexpr size_t kWrapped = kNonceBytes + kKeyBytes + kTagBytes;
  const size_t end = sealed.find('\0');
  if (sealed.empty() || sealed[0] != kVersion || end == std::string_view::npos || sealed.size() < end + 1 + kWrapped) {
    return absl::DataLossError("the sealed secret is malformed");
  }
  const std::string key_id(sealed.substr(1, end - 1));
  auto key = keys_.find(key_id);
  if (key == keys_.end()) {
    return absl::NotFoundError(
        absl::StrCat("the secret is sealed with key ", key_id, ", which the key file does not hold"));
  }
  const std::string associated = Associated(record_identity, key_id);
  PS_ASSIGN_OR_RETURN(std::string data_key,
                      Decrypt(key->second.Reveal(), sealed.substr(end + 1, kWrapped), associated));
  const SecretString guard(std::move(data_key));
  PS_ASSIGN_OR_RETURN(std::string plain, Decrypt(guard.Reveal(), sealed.substr(end + 1 + kWrapped), associated));
  return SecretString(std::move(plain));
}

absl::StatusOr<std::string> Vault::KeyedHash(const SecretString& message, std::string_view purpose) const {
  return HashWith(first_, keys_.at(first_).Reveal(), message.Reveal(), purpose);
}

absl::Status Vault::CheckKeyedHash(std::string_view hash, const SecretString& message, std::string_view purpose) const {
  auto key = keys_.find(std::string(hash.substr(0, hash.rfind(':'))));
  if (hash.rfind(':') == std::string_view::npos || key == keys_.end()) {
    return absl::NotFoundError("the hash was made with a key that the key file does not hold");
  }
  PS_ASSIGN_OR_RETURN(std::string mine, HashWith(key->first, key->second.Reveal(), message.Reveal(), purpose));
  const bool same = mine.size() == hash.size() && CRYPTO_memcmp(mine.data(), hash.data(), mine.size()) == 0;
  return same ? absl::OkStatus() : absl::InvalidArgumentError("the hash is of another message");
}

absl::StatusOr<SecretString> LoadToken(const std::string& path) {
  PS_ASSIGN_OR_RETURN(std::string content, ReadSecretFile(path));
  std::string token(absl::StripAsciiWhitespace(content));
  if (token.size() < kMinTokenBytes) return absl::FailedPreconditionError(absl::StrCat(path, " holds no token"));
  return SecretString(std::move(token));
}

}  // namespace poststelle::secrets
