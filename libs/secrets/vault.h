// Encryption of secrets at rest.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "libs/base/secret_string.h"

namespace poststelle::secrets {

// Seals and opens secrets with keys from a file: lines "key <id> <64 hex digits>", the first one encrypts, all decrypt.
// Thread-safe (immutable after opening).
class Vault {
 public:
  // Reads the key file, or makes one with a random key (mode 0600) where there is none. Errors name the file and the
  // fix: readable by others, malformed, not writable.
  static absl::StatusOr<std::unique_ptr<Vault>> OpenOrCreate(const std::string& path);

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

 private:
  std::map<std::string, SecretString> keys_;
  std::string first_;
};

// The content of a file that holds a secret. Refused, with the fix, if others may read it; our own must be ours alone,
// one that was given to us (Kubernetes mounts secrets as root's) may be readable by our group. kNotFound if there is
// none.
absl::StatusOr<std::string> ReadSecretFile(const std::string& path);

// Shorter ones could be guessed.
inline constexpr size_t kMinTokenBytes = 20;

// Our own bearer token, from a file that holds nothing else. kNotFound while the file does not exist.
absl::StatusOr<SecretString> LoadToken(const std::string& path);

}  // namespace poststelle::secrets
