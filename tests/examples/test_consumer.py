"""The example consumer prints what comes and goes on where it stopped."""
import os
import subprocess
import sys

from samples import mail
from stack import BUILD, ROOT, Stack


def consume(stack, count):
    env = {**os.environ, "PYTHONPATH": os.path.join(BUILD, "gen_python"),
           "POSTSTELLE_TOKEN_FILE": stack.identities.token_file("consumer")}
    done = subprocess.run([sys.executable, os.path.join(ROOT, "examples", "consumer.py"), stack.fetcher.address, "example",
                           str(count)], env=env, capture_output=True, check=True, text=True, timeout=120)
    return [line.split(" ", 1)[1] for line in done.stdout.splitlines()]


def test_resumes():
    with Stack().start() as stack:
        box = stack.create_mailbox()
        for i in range(4):
            stack.dovecot.deliver("support@localhost", mail(f"mail {i}", "x", message_id=f"{i}@x"))
        stack.idle(box)
        seen = consume(stack, 2) + consume(stack, 2)
        assert sorted(seen) == [f"mail {i}" for i in range(4)]
