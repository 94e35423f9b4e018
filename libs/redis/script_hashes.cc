#include "libs/redis/script_hashes.h"

#include <openssl/sha.h>

#include <string_view>

#include "libs/base/ids.h"

namespace poststelle::redis {

std::string ScriptHashes::Of(const std::string& script) {
  {
    std::lock_guard lock(mutex_);
    if (const auto known = hashes_.find(script); known != hashes_.end()) return known->second;
  }
  unsigned char digest[SHA_DIGEST_LENGTH];
  SHA1(reinterpret_cast<const unsigned char*>(script.data()), script.size(), digest);
  std::string hash = Hex(std::string_view(reinterpret_cast<char*>(digest), sizeof digest));
  std::lock_guard lock(mutex_);
  if (hashes_.size() < kMaxScripts) hashes_.emplace(script, hash);
  return hash;
}

}  // namespace poststelle::redis
