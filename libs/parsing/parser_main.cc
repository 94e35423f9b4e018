// poststelle-parser: decodes mails that come in on standard input and writes the results to standard output. Everything
// that could be abused by a hostile mail is given up first: network, files, other processes, memory without limit.
#include <fcntl.h>
#include <iconv.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "libs/mail/charset.h"
#include "libs/mail/mime.h"
#include "libs/parsing/frame.h"

namespace poststelle::parsing {
namespace {

bool ReadAll(char* to, size_t size) {
  while (size > 0) {
    const ssize_t got = read(STDIN_FILENO, to, size);
    if (got <= 0) return false;
    to += got;
    size -= static_cast<size_t>(got);
  }
  return true;
}

bool WriteAll(const std::string& bytes) {
  size_t at = 0;
  while (at < bytes.size()) {
    const ssize_t sent = write(STDOUT_FILENO, bytes.data() + at, bytes.size() - at);
    if (sent <= 0) return false;
    at += static_cast<size_t>(sent);
  }
  return true;
}

void Limit(int resource, rlim_t value) {
  const rlimit limit{value, value};
  setrlimit(static_cast<__rlimit_resource>(resource), &limit);
}

// New sockets, programs, processes and files opened for writing end with EPERM. Reading stays allowed, because iconv
// loads the tables of a charset when it first meets it.
bool ForbidTheRest() {
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
  if (filter == nullptr) return false;
  int failed = 0;
  for (int call : {SCMP_SYS(socket),
                   SCMP_SYS(connect),
                   SCMP_SYS(bind),
                   SCMP_SYS(listen),
                   SCMP_SYS(accept),
                   SCMP_SYS(accept4),
                   SCMP_SYS(sendto),
                   SCMP_SYS(sendmsg),
                   SCMP_SYS(execve),
                   SCMP_SYS(execveat),
                   SCMP_SYS(fork),
                   SCMP_SYS(vfork),
                   SCMP_SYS(ptrace),
                   SCMP_SYS(process_vm_readv),
                   SCMP_SYS(process_vm_writev),
                   SCMP_SYS(unlink),
                   SCMP_SYS(unlinkat),
                   SCMP_SYS(rename),
                   SCMP_SYS(renameat),
                   SCMP_SYS(renameat2),
                   SCMP_SYS(mkdir),
                   SCMP_SYS(mkdirat),
                   SCMP_SYS(link),
                   SCMP_SYS(linkat),
                   SCMP_SYS(symlink),
                   SCMP_SYS(symlinkat),
                   SCMP_SYS(truncate),
                   SCMP_SYS(chmod),
                   SCMP_SYS(fchmodat),
                   SCMP_SYS(chown),
                   SCMP_SYS(creat),
                   SCMP_SYS(kill),
                   SCMP_SYS(tgkill),
                   SCMP_SYS(mount),
                   SCMP_SYS(bpf)}) {
    const bool abort_needs_it = call == SCMP_SYS(tgkill);  // abort() raises on itself
    if (!abort_needs_it) failed |= seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), call, 0);
  }
  failed |= seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(openat), 1,
                             SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE, O_WRONLY));
  failed |= seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(openat), 1,
                             SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE, O_RDWR));
  failed |= seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(open), 1,
                             SCMP_A1(SCMP_CMP_MASKED_EQ, O_ACCMODE, O_WRONLY));
  failed |= seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(open), 1,
                             SCMP_A1(SCMP_CMP_MASKED_EQ, O_ACCMODE, O_RDWR));
  failed |= seccomp_load(filter);
  seccomp_release(filter);
  return failed == 0;
}

int Main() {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_DUMPABLE, 0);
  prctl(PR_SET_NO_NEW_PRIVS, 1);
  Limit(RLIMIT_CORE, 0);
  Limit(RLIMIT_FSIZE, 0);
  Limit(RLIMIT_NOFILE, 64);
#ifndef POSTSTELLE_SANITIZED
  const char* limit = std::getenv("POSTSTELLE_PARSER_MEMORY");
  Limit(RLIMIT_AS, limit == nullptr ? rlim_t{1} << 30 : std::strtoull(limit, nullptr, 10));
#endif
  mail::InitMime();
  if (!ForbidTheRest())
    std::fputs("poststelle-parser: this kernel takes no seccomp filter; going on without\n", stderr);
  while (true) {
    char header[kFrameHeader];
    if (!ReadAll(header, sizeof header)) return 0;  // the parent is done with us
    std::string raw(FrameSize(header), '\0');
    if (!ReadAll(raw.data(), raw.size())) return 0;
    const std::string result = mail::ParseMail(raw).SerializeAsString();
    if (!WriteAll(FrameHeader(static_cast<uint32_t>(result.size()))) || !WriteAll(result)) return 0;
  }
}

}  // namespace
}  // namespace poststelle::parsing

int main() { return poststelle::parsing::Main(); }
