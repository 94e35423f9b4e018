#include "libs/secrets/vault.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/rand.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "libs/base/ids.h"
#include "libs/base/status_macros.h"
#include "libs/base/sv.h"
#include "libs/secrets/private_file.h"

namespace poststelle::secrets {
namespace {

constexpr size_t kKeyBytes = 32;
constexpr size_t kNonceBytes = 12;
constexpr size_t kTagBytes = 16;
constexpr char kVersion = '1';

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

// Identity first, so that a wrapped data key can't be used for another record either.
std::string Associated(std::string_view identity, std::string_view key_id) {
  return absl::StrCat(Av(identity), std::string(1, '\0'), Av(key_id));
}

}  // namespace

struct Vault::Ring {
  std::map<std::string, SecretString> keys;
  std::string first;
};

Vault::Vault(std::string path) : path_(std::move(path)) {}
Vault::~Vault() = default;

absl::StatusOr<std::unique_ptr<Vault>> Vault::OpenOrCreate(const std::string& path) {
  PS_RETURN_IF_ERROR(LoadOrCreateKeys(path).status());
  return Open(path);
}

absl::StatusOr<std::unique_ptr<Vault>> Vault::Open(const std::string& path) {
  std::unique_ptr<Vault> vault(new Vault(path));
  const std::lock_guard lock(vault->mutex_);
  PS_RETURN_IF_ERROR(vault->Load());
  return vault;
}

absl::Status Vault::Load() const {
  FileStamp stamp;
  PS_ASSIGN_OR_RETURN(std::vector<Key> keys, LoadKeys(path_, &stamp));
  auto ring = std::make_shared<Ring>();
  ring->first = keys.front().id;
  for (Key& key : keys) ring->keys.emplace(std::move(key.id), std::move(key.bytes));
  ring_ = std::move(ring);
  stamp_ = stamp;
  return absl::OkStatus();
}

std::shared_ptr<const Vault::Ring> Vault::Current() const {
  const std::lock_guard lock(mutex_);
  const FileStamp now = StampOf(path_);
  if (now == stamp_) return ring_;
  stamp_ = now;  // what can't be read is looked at, and told, once
  const absl::Status loaded = Load();
  if (told_) told_(loaded, ring_->first);
  return ring_;
}

std::shared_ptr<const Vault::Ring> Vault::RingWith(const std::string& key_id) const {
  {
    const std::lock_guard lock(mutex_);
    if (ring_->keys.count(key_id) != 0) return ring_;
  }
  std::shared_ptr<const Ring> ring = Current();
  return ring->keys.count(key_id) != 0 ? ring : nullptr;
}

std::string Vault::FirstKey() const { return Current()->first; }

bool Vault::HasKey(const std::string& key_id) const { return RingWith(key_id) != nullptr; }

void Vault::OnReload(std::function<void(const absl::Status& loaded, const std::string& first_key)> told) {
  const std::lock_guard lock(mutex_);
  told_ = std::move(told);
}

std::string Vault::KeyOf(std::string_view sealed) {
  const size_t end = sealed.find('\0');
  if (sealed.empty() || sealed[0] != kVersion || end == std::string_view::npos) return "";
  return std::string(sealed.substr(1, end - 1));
}

std::string Vault::KeyOfHash(std::string_view hash) {
  const size_t end = hash.rfind(':');
  return end == std::string_view::npos ? "" : std::string(hash.substr(0, end));
}

absl::StatusOr<std::string> Vault::Seal(const SecretString& secret, std::string_view record_identity) const {
  const std::shared_ptr<const Ring> ring = Current();
  PS_ASSIGN_OR_RETURN(std::string data_key, RandomBytes(kKeyBytes));
  const SecretString guard(data_key);
  const std::string associated = Associated(record_identity, ring->first);
  PS_ASSIGN_OR_RETURN(std::string wrapped, Encrypt(ring->keys.at(ring->first).Reveal(), data_key, associated));
  PS_ASSIGN_OR_RETURN(std::string body, Encrypt(data_key, secret.Reveal(), associated));
  OPENSSL_cleanse(data_key.data(), data_key.size());
  return absl::StrCat(std::string(1, kVersion), ring->first, std::string(1, '\0'), wrapped, body);
}

absl::StatusOr<SecretString> Vault::Open(std::string_view sealed, std::string_view record_identity) const {
  constexpr size_t kWrapped = kNonceBytes + kKeyBytes + kTagBytes;
  const size_t end = sealed.find('\0');
  const std::string key_id = KeyOf(sealed);
  if (key_id.empty() || sealed.size() < end + 1 + kWrapped) {
    return absl::DataLossError("the sealed secret is malformed");
  }
  const std::shared_ptr<const Ring> ring = RingWith(key_id);
  if (ring == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("the secret is sealed with key ", key_id, ", which the key file does not hold"));
  }
  const std::string associated = Associated(record_identity, key_id);
  PS_ASSIGN_OR_RETURN(std::string data_key,
                      Decrypt(ring->keys.at(key_id).Reveal(), sealed.substr(end + 1, kWrapped), associated));
  const SecretString guard(std::move(data_key));
  PS_ASSIGN_OR_RETURN(std::string plain, Decrypt(guard.Reveal(), sealed.substr(end + 1 + kWrapped), associated));
  return SecretString(std::move(plain));
}

absl::StatusOr<std::string> Vault::KeyedHash(const SecretString& message, std::string_view purpose) const {
  const std::shared_ptr<const Ring> ring = Current();
  return HashWith(ring->first, ring->keys.at(ring->first).Reveal(), message.Reveal(), purpose);
}

absl::Status Vault::CheckKeyedHash(std::string_view hash, const SecretString& message, std::string_view purpose) const {
  const std::string key_id = KeyOfHash(hash);
  const std::shared_ptr<const Ring> ring = key_id.empty() ? nullptr : RingWith(key_id);
  if (ring == nullptr) return absl::NotFoundError("the hash was made with a key that the key file does not hold");
  PS_ASSIGN_OR_RETURN(std::string mine, HashWith(key_id, ring->keys.at(key_id).Reveal(), message.Reveal(), purpose));
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
