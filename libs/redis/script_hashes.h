// The hashes by which Redis knows scripts, each computed once.
#pragma once

#include <mutex>
#include <string>
#include <unordered_map>

namespace poststelle::redis {

// Thread-safe.
class ScriptHashes {
 public:
  // Texts remembered; scripts are constants of the program, so more than this means that somebody builds them at run
  // time.
  static constexpr size_t kMaxScripts = 256;
  // SHA-1 of `script` in lower-case hexadecimal.
  std::string Of(const std::string& script);

 private:
  std::mutex mutex_;
  std::unordered_map<std::string, std::string> hashes_;  // guarded: text → hash
};

}  // namespace poststelle::redis
