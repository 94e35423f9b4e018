// Encryption of secrets at rest.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "libs/base/secret_string.h"
#include "libs/secrets/key_file.h"

namespace poststelle::secrets {

// Seals and opens secrets with keys from a file (key_file.h): the first one encrypts, all decrypt. Follows changes of
// the file: it looks whether it was replaced before it seals or hashes, and before it says that it does not know a key.
// A file that is away or malformed meanwhile changes nothing: the keys of before stay. Thread-safe.
class Vault {
 public:
  // Reads the key file, or makes one with a random key (mode 0600) where there is none. Errors name the file and the
  // fix: readable by others, malformed, not writable.
  static absl::StatusOr<std::unique_ptr<Vault>> OpenOrCreate(const std::string& path);
  // Reads the key file; kNotFound where there is none.
  static absl::StatusOr<std::unique_ptr<Vault>> Open(const std::string& path);
  ~Vault();

  // AES-256-GCM under a fresh data key, which is wrapped by the first key. `record_identity` is authenticated with it.
  absl::StatusOr<std::string> Seal(const SecretString& secret, std::string_view record_identity) const;

  // Errors: kNotFound for a key id that the file does not hold, kDataLoss for a value that was altered, truncated or
  // sealed for another record.
  absl::StatusOr<SecretString> Open(std::string_view sealed, std::string_view record_identity) const;

  // A hash of `message` that only holders of the key can compute or try words against (HMAC-SHA-256 under a key derived
  // from the first key by HKDF; `purpose` keeps uses apart): "<key id>:<hex>".
  absl::StatusOr<std::string> KeyedHash(const SecretString& message, std::string_view purpose) const;

  // OK if `hash` is KeyedHash(message, purpose) under any key of the file; kInvalidArgument if it is another message's,
  // kNotFound if the file does not hold the key that it was made with.
  absl::Status CheckKeyedHash(std::string_view hash, const SecretString& message, std::string_view purpose) const;

  // The id of the key that a sealed value or a hash was made with; empty if it is malformed.
  static std::string KeyOf(std::string_view sealed);
  static std::string KeyOfHash(std::string_view hash);
  // The id of the key that encrypts now.
  std::string FirstKey() const;
  bool HasKey(const std::string& key_id) const;

  // `told` is called after each look at a changed file: whether it could be read, and the key that encrypts now. With
  // a lock held: it must not block nor call the vault.
  void OnReload(std::function<void(const absl::Status& loaded, const std::string& first_key)> told);

 private:
  struct Ring;
  explicit Vault(std::string path);
  absl::Status Load() const;                    // with mutex_ held
  std::shared_ptr<const Ring> Current() const;  // after a look at the file
  // With this key, after a look at the file if need be; null if there is none.
  std::shared_ptr<const Ring> RingWith(const std::string& key_id) const;

  const std::string path_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const Ring> ring_;  // guarded by mutex_; immutable itself, shared with the calls in flight
  mutable FileStamp stamp_;                   // guarded by mutex_: of the file that was looked at last
  std::function<void(const absl::Status&, const std::string&)> told_;  // guarded by mutex_
};

// Shorter ones could be guessed.
inline constexpr size_t kMinTokenBytes = 20;

// Our own bearer token, from a file that holds nothing else. kNotFound while the file does not exist.
absl::StatusOr<SecretString> LoadToken(const std::string& path);

}  // namespace poststelle::secrets
