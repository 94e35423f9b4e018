#include "libs/base/failpoint.h"

namespace poststelle {

__attribute__((weak)) void Failpoint(const char*) {}
__attribute__((weak)) bool DeliberatelyBroken(const char*) { return false; }

}  // namespace poststelle
