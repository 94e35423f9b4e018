#include "libs/parsing/sandbox.h"

#include <fcntl.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

namespace poststelle::parsing {
namespace {

std::string Errno(const char* what) { return std::string(what) + ": " + std::strerror(errno); }

bool Limit(int resource, rlim_t value) {
  const rlimit limit{value, value};
  return setrlimit(static_cast<__rlimit_resource>(resource), &limit) == 0;
}

// sysinfo: qsort asks once how much memory there is. sigaltstack, rt_sig…: abort(), and the sanitizers.
constexpr int kAllowed[] = {
    SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(close), SCMP_SYS(fstat),
    SCMP_SYS(lseek), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(futex),
    SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction),
    SCMP_SYS(sigaltstack), SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(getrandom), SCMP_SYS(sched_yield),
    SCMP_SYS(restart_syscall), SCMP_SYS(alarm), SCMP_SYS(setitimer), SCMP_SYS(getpid), SCMP_SYS(gettid),
#ifdef POSTSTELLE_SANITIZED
    // How UBSan finds out whether the memory behind a pointer to an object can be read.
    SCMP_SYS(pipe), SCMP_SYS(pipe2),
#endif
    SCMP_SYS(sysinfo)};

#ifdef POSTSTELLE_SANITIZED
constexpr rlim_t kDescriptors = 16;
#else
constexpr rlim_t kDescriptors = 3;  // input, output, errors
#endif

[[maybe_unused]] std::string Filter() {  // not called under the thread sanitizer
  const std::unique_ptr<void, decltype(&seccomp_release)> filter(seccomp_init(SCMP_ACT_KILL_PROCESS), &seccomp_release);
  if (filter == nullptr) return "seccomp_init failed";
  int failed = 0;
  auto allow_if = [&](int call, const scmp_arg_cmp& condition) {
    failed |= seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, call, 1, condition);
  };
  for (int call : kAllowed) failed |= seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, call, 0);
  // Memory, but none that can be run.
  allow_if(SCMP_SYS(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
  allow_if(SCMP_SYS(mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
  // glibc's fstat(): of a descriptor, not of a path.
  allow_if(SCMP_SYS(newfstatat), SCMP_A3(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, AT_EMPTY_PATH));
  // abort(): a signal to itself, so that a crash still looks like one.
  allow_if(SCMP_SYS(tgkill), SCMP_A0(SCMP_CMP_EQ, static_cast<scmp_datum_t>(getpid()), 0));
  if (failed != 0) return "seccomp_rule_add failed";
  if (const int error = seccomp_load(filter.get()); error != 0)
    return std::string("seccomp_load: ") + std::strerror(-error);
  return "";
}

}  // namespace

std::string EnterSandbox(const SandboxOptions& options) {
  if (!Limit(RLIMIT_CORE, 0)) return Errno("RLIMIT_CORE");
  if (!Limit(RLIMIT_FSIZE, 0)) return Errno("RLIMIT_FSIZE");
  if (!Limit(RLIMIT_NOFILE, kDescriptors)) return Errno("RLIMIT_NOFILE");
  if (prctl(PR_SET_DUMPABLE, 0) != 0) return Errno("PR_SET_DUMPABLE");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return Errno("PR_SET_NO_NEW_PRIVS");
#ifndef POSTSTELLE_SANITIZED
  // The sanitizers reserve terabytes of addresses.
  if (!Limit(RLIMIT_AS, options.memory)) return Errno("RLIMIT_AS");
#else
  static_cast<void>(options);
#endif
#if defined(__has_feature) && __has_feature(thread_sanitizer)
  return "";  // its own thread needs more than a parser may
#else
  return Filter();
#endif
}

}  // namespace poststelle::parsing
