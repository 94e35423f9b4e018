// What a process that holds secrets gives up.
#pragma once

namespace poststelle {

// No core files, and no attaching or reading of memory or environment by others of the same user. Lasts until exec.
// Builds with sanitizers stay readable: LeakSanitizer attaches to its own threads.
void ForbidDumps();

}  // namespace poststelle
