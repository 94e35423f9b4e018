// `poststelle-config keys …`: looks at the keys that seal passwords and changes them, beside config processes that
// serve.
#pragma once

namespace poststelle::config {

// argv[0] is "keys". Returns the exit code: 0 done, 1 failed (why is on standard error), 2 wrong usage, 3 done, but
// some secrets can't be opened with the keys at hand.
int KeysCommand(int argc, char** argv);

}  // namespace poststelle::config
