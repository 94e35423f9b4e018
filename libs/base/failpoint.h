// Failpoints: named places where a test lets the process die, and named ways to break an invariant on purpose.
//
// The shipped binaries link failpoint_off.cc, where both are empty. Test binaries (`*-failpoints`) link
// failpoint_on.cc, which reads POSTSTELLE_FAILPOINT="name[:n]" (SIGKILL to itself at the n-th visit, 1 by default)
// and POSTSTELLE_BREAK="name" once, and POSTSTELLE_STOP="name=FILE": whoever gets there first while FILE exists removes
// it and stops itself with SIGSTOP. docs/life-of-a-mail.md lists every name with what a crash there does.
#pragma once

namespace poststelle {

// Dies here if the test asked for it. `name` is a literal such as "listing.before_commit".
void Failpoint(const char* name);

// True where the test asked to break the invariant `name`, to prove that the checker notices.
bool DeliberatelyBroken(const char* name);

}  // namespace poststelle
