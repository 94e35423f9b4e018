// What a child process gives up before it sees a mail.
#pragma once

#include <cstdint>
#include <string>

namespace poststelle::parsing {

struct SandboxOptions {
  uint64_t memory = uint64_t{1} << 30;  // bytes of address space
};

// Leaves this process the system calls that decoding needs (memory, what is open already, its own end); any other ends
// it with SIGSYS. No file can be opened afterwards: load everything before. What went wrong, or empty.
std::string EnterSandbox(const SandboxOptions& options);

}  // namespace poststelle::parsing
