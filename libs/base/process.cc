#include "libs/base/process.h"

#include <sys/prctl.h>
#include <sys/resource.h>

namespace poststelle {

void ForbidDumps() {
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
#ifndef POSTSTELLE_SANITIZED
  // The limit alone would not stop a core_pattern that pipes to a program.
  prctl(PR_SET_DUMPABLE, 0);
#endif
}

}  // namespace poststelle
