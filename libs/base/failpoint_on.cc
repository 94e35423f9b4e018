#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>

#include "libs/base/failpoint.h"

namespace poststelle {
namespace {

// POSTSTELLE_FAILPOINT.
struct Death {
  std::string name;
  int visit = 1;
  Death() {
    const char* env = std::getenv("POSTSTELLE_FAILPOINT");
    if (env == nullptr) return;
    name = env;
    if (auto colon = name.find(':'); colon != std::string::npos) {
      visit = std::atoi(name.c_str() + colon + 1);
      name.resize(colon);
    }
  }
};

// POSTSTELLE_STOP.
struct Pause {
  std::string name;
  std::string file;
  Pause() {
    const char* env = std::getenv("POSTSTELLE_STOP");
    if (env == nullptr) return;
    const std::string text = env;
    const size_t equals = text.find('=');
    name = text.substr(0, equals);
    if (equals != std::string::npos) file = text.substr(equals + 1);
  }
};

}  // namespace

void Failpoint(const char* name) {
  static const Death death;
  static const Pause pause;
  static std::atomic<int> visits{0};
  if (death.name == name && ++visits == death.visit) raise(SIGKILL);
  if (pause.name == name && unlink(pause.file.c_str()) == 0) raise(SIGSTOP);
}

bool DeliberatelyBroken(const char* name) {
  const char* env = std::getenv("POSTSTELLE_BREAK");
  return env != nullptr && std::strcmp(env, name) == 0;
}

}  // namespace poststelle
