#include <atomic>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>

#include "libs/base/failpoint.h"

namespace poststelle {
namespace {

struct Wanted {
  std::string name;
  int visit = 1;
  Wanted() {
    const char* env = std::getenv("POSTSTELLE_FAILPOINT");
    if (env == nullptr) return;
    name = env;
    if (auto colon = name.find(':'); colon != std::string::npos) {
      visit = std::atoi(name.c_str() + colon + 1);
      name.resize(colon);
    }
  }
};

}  // namespace

void Failpoint(const char* name) {
  static const Wanted wanted;
  static std::atomic<int> visits{0};
  if (wanted.name != name) return;
  if (++visits == wanted.visit) raise(SIGKILL);
}

bool DeliberatelyBroken(const char* name) {
  const char* env = std::getenv("POSTSTELLE_BREAK");
  return env != nullptr && std::strcmp(env, name) == 0;
}

}  // namespace poststelle
