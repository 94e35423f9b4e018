"""Passwords and keys are in memory: no core file, and nobody of the same user looks inside."""
import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from samples import mail
from servers import make_reachable, wait_until
from stack import Stack, binary
from canary import processes_below

NOBODY = 65534


def test_services_and_their_children_have_no_core_limit_left():
    with Stack().start() as stack:
        seen = []
        stack.create_mailbox()
        stack.dovecot.deliver("support@localhost", mail("Hello", "A parser starts with the first mail."))
        wait_until(lambda: len(processes_below(stack.fetcher.process.child.pid)) > 1, what="a parser")
        for service in (stack.config, stack.fetcher):
            for pid in processes_below(service.process.child.pid):
                with open(f"/proc/{pid}/limits") as f:
                    line = next(line for line in f if line.startswith("Max core file size"))
                with open(f"/proc/{pid}/comm") as f:
                    seen.append((f.read().strip(), line.split()[4:6]))
                # What is not dumpable belongs to root in /proc, whoever runs it.
                assert os.stat(f"/proc/{pid}/environ").st_uid == 0
        print(seen)
        assert {name for name, _ in seen} == {"poststelle-conf", "poststelle-fetc", "poststelle-pars"}
        assert all(limit == ["0", "0"] for _, limit in seen), seen
        stack.config.process.child.send_signal(signal.SIGABRT)
        assert stack.config.process.child.wait(20) == -signal.SIGABRT


@pytest.mark.parametrize("name", ("config", "fetcher"))
def test_the_same_user_can_neither_attach_nor_read_nor_find_a_core(name, tmp_path):
    folder = str(tmp_path)
    program = os.path.join(folder, f"poststelle-{name}")
    for each in (f"poststelle-{name}", "poststelle-parser"):
        shutil.copy(binary(each), folder)
    home = os.path.join(folder, "home")
    os.makedirs(home)
    if os.geteuid() == 0:
        os.chown(home, NOBODY, NOBODY)
    make_reachable(program)
    os.chmod(folder, 0o755)
    arguments = {"config": ["--database", "sqlite:config.db"],
                 "fetcher": ["--database", "sqlite:fetcher.db", "--redis", "redis://127.0.0.1:1", "--config-address", "127.0.0.1:1",
                             "--config-token-file", "token"]}[name]
    shutil.copy(os.path.join(os.path.dirname(__file__), "attach.py"), folder)
    done = subprocess.run([sys.executable, os.path.join(folder, "attach.py"), str(NOBODY), program, "--listen", "127.0.0.1:0",
                           "--allow-unauthenticated-loopback",
                           *arguments], cwd=home, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    seen = json.loads(done.stdout)
    print(seen)
    service, opened = seen["service"], seen["open"]
    assert service["core_limit"] == ["0", "0"] and not service["core"] and service["signal"] == signal.SIGSEGV
    assert service["attach"] == errno.EPERM and not service["environ"] and not service["mem"]
    assert service["status"], "what monitoring reads stays readable"
    # Opened by the flag, the same looks succeed: they can fail.
    assert opened["environ"] and opened["attach"] == 0
    assert opened["core"] or opened["core_limit"][0] == "0"
