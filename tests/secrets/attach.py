"""Starts a program as an unprivileged user and says, as that same user, what can be seen of it.

usage: attach.py UID PROGRAM ARGUMENT…; prints one JSON object. Its own program, because a user once given up does not come back.
"""
import ctypes
import json
import os
import signal
import subprocess
import sys
import time

PTRACE_ATTACH, PTRACE_DETACH = 16, 17


def attach(pid):
    """0, or the errno that refuses it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(PTRACE_ATTACH, pid, None, None) != 0:
        return ctypes.get_errno()
    os.waitpid(pid, 0)
    libc.ptrace(PTRACE_DETACH, pid, None, None)
    return 0


def readable(path):
    try:
        with open(path, "rb") as f:
            f.read(1)
        return True
    except OSError:
        return False


def look(argv, ready):
    child = subprocess.Popen(argv, stdout=subprocess.PIPE)
    ready(child)
    limits = [line.split()[4:6] for line in open(f"/proc/{child.pid}/limits") if line.startswith("Max core file size")]
    out = {"core_limit": limits[0], "attach": attach(child.pid), "environ": readable(f"/proc/{child.pid}/environ"),
           "mem": readable(f"/proc/{child.pid}/mem") or os.access(f"/proc/{child.pid}/mem", os.R_OK),
           "status": readable(f"/proc/{child.pid}/status")}
    os.kill(child.pid, signal.SIGSEGV)
    _, status = os.waitpid(child.pid, 0)
    return {**out, "signal": os.WTERMSIG(status), "core": os.WCOREDUMP(status)}


if __name__ == "__main__":
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(int(sys.argv[1]))
        os.setuid(int(sys.argv[1]))
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # changing the user made this process unreadable too
    program = sys.argv[2:]
    print(json.dumps({"service": look(program, lambda child: child.stdout.readline()),
                      "open": look([*program, "--allow-core-dumps"], lambda child: child.stdout.readline())}))
