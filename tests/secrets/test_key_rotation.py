"""`poststelle-config keys`: keys change while config processes serve, and nobody notices."""
import os
import random
import shutil
import signal
import subprocess
import threading
import time

import grpc
import pytest

from servers import Process, make_reachable, wait_until
from stack import Service, Stack, binary
from keys import Config, command, keys, reason, usage

BOXES = 450
UNTOUCHED = "box-0250-untouched"  # nobody else locks rows and then waits for this one
NOBODY = 65534


class Traffic:
    """Reads passwords, changes them, changes mailboxes without them and creates some, on all processes at once."""

    def __init__(self, configs, passwords):
        self.configs, self.passwords = configs, passwords
        self.calls, self.errors, self.over = 0, [], False
        self.lock = threading.Lock()
        self.busy = set()
        self.threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(4)]
        for thread in self.threads:
            thread.start()

    def _run(self, n):
        dice = random.Random(n)
        turn = 0
        while not self.over:
            turn += 1
            config = dice.choice(self.configs)
            with self.lock:
                free = [box for box in self.passwords if box not in self.busy]
                box = dice.choice(free)
                self.busy.add(box)
            try:
                self._call(dice, config, box, f"pw-{n}-{turn}")
                self.calls += 1
            except grpc.RpcError as error:
                self.errors.append((error.code().name, error.details()))
            finally:
                with self.lock:
                    self.busy.discard(box)

    def _call(self, dice, config, box, password):
        what = dice.random()
        if what < 0.6:
            got = config.password(box)
            if got != self.passwords[box]:
                self.errors.append(("WRONG", box, got))
        elif what < 0.8:
            config.update(box, password=password)
            self.passwords[box] = password
        elif what < 0.95:
            config.update(box, enabled=dice.random() < 0.5)
        else:
            fresh = "t" + password
            config.create(fresh, password)
            with self.lock:
                self.passwords[fresh] = password

    def stop(self):
        self.over = True
        for thread in self.threads:
            thread.join(60)


def kill_in_the_middle(stack, old):
    """kill -9 of a rotation that has done a part of the batches; returns the key that it made."""
    child = None
    if stack.postgres:
        # Its third batch meets a locked row and waits.
        with stack.postgres.holding("config", f"SELECT 1 FROM mailbox WHERE mailbox_id = '{UNTOUCHED}' FOR UPDATE"):
            child = subprocess.Popen(command(stack, "rotate"), stdout=subprocess.DEVNULL)
            done = "SELECT count(*) FROM mailbox WHERE position('{}'::bytea in sealed_password) <> 2"
            wait_until(lambda: int(stack.postgres.query("config", done.format(old))[0]) >= 200, what="two batches")
            child.kill()
            child.wait()
    else:
        child = subprocess.Popen(command(stack, "rotate"), stdout=subprocess.PIPE)
        child.stdout.readline()  # the key is made; what follows takes some hundredths of a second
        time.sleep(random.random() * 0.03)
        child.kill()
        child.communicate()
    return child.returncode


@pytest.mark.parametrize("database", ("sqlite", "postgres"))
def test_rotation_beside_processes_that_serve(database):
    with Stack(mail=False, database=database) as stack:
        services = [stack.config]
        second = Service("config-2", "poststelle-config", stack.folder, stack.config.arguments)
        stack.others.append(second)
        second.start()
        services.append(second)
        configs = [Config(stack, service) for service in services]
        passwords = {f"box-{n:04d}": f"first-{n}" for n in range(BOXES)}
        for n, (box, password) in enumerate(passwords.items()):
            configs[n % len(configs)].create(box, password, request_id=f"request-{n}" if n < 5 else "")
        configs[0].create(UNTOUCHED, "untouched")
        first = next(iter(usage(stack)))
        traffic = Traffic(configs, passwords)
        outcomes = []
        for turn in range(3):
            before = next(iter(usage(stack)))
            killed = kill_in_the_middle(stack, before)
            state = usage(stack)
            made = next(iter(state))
            assert made != before
            outcomes.append((killed, {key: value[0] for key, value in state.items()}))
            said = keys(stack, "rotate")
            if killed == -signal.SIGKILL and "not finished" in state[made][2]:
                assert f"going on with the rotation to key {made}" in said
            elif database == "postgres":
                raise AssertionError((killed, state))
            # At most what each thread had on its way, sealed and not yet stored.
            state = usage(stack)
            assert sum(count for count, _, _ in list(state.values())[1:]) <= len(traffic.threads), state
            time.sleep(0.2)  # traffic between two rotations
        calls = traffic.calls
        wait_until(lambda: traffic.calls > calls or traffic.errors, what="calls after the last rotation")
        pruned = keys(stack, "prune")
        assert first in pruned and "5 creates can't be recognised" in pruned, pruned
        calls = traffic.calls
        wait_until(lambda: traffic.calls > calls + 50 or traffic.errors, what="calls after the old keys went")
        traffic.stop()
        print(f"{database}: {traffic.calls} calls beside 3 rotations, killed at (exit code, passwords by key): {outcomes}; {len(traffic.errors)} errors")
        assert traffic.errors == []
        state = usage(stack)
        assert len(state) == 1 and next(iter(state.values()))[0] == len(traffic.passwords) + 1, state
        # Not only what was kept in memory: the file that is left opens everything.
        assert stack.config.stop() == 0
        stack.config.start()
        config = Config(stack)
        assert {box: config.password(box) for box in traffic.passwords} == traffic.passwords


def test_a_repeated_create_is_recognised_until_its_key_is_pruned():
    with Stack(mail=False) as stack:
        config = Config(stack)
        made = config.create("again", "one", request_id="r-1")
        assert "key " in keys(stack, "rotate")
        assert config.create("again", "one", request_id="r-1") == made
        with pytest.raises(grpc.RpcError) as reused:
            config.create("again", "two", request_id="r-1")
        assert reason(reused.value) == "REQUEST_ID_REUSED"
        config.create("later", "one", request_id="r-2")
        assert "1 creates can't be recognised" in keys(stack, "prune")
        with pytest.raises(grpc.RpcError) as there:
            config.create("again", "one", request_id="r-1")
        assert reason(there.value) == "MAILBOX_EXISTS"
        assert config.create("later", "one", request_id="r-2").name == "mailboxes/later"
        assert "every key is needed" in keys(stack, "prune")
        log = stack.config.process.log()
        assert '"event":"keys.reloaded"' in log


def test_a_mounted_key_file_is_followed_and_left_alone():
    """As in Kubernetes: the file comes from elsewhere, its folder is swapped, and the process may not write there."""
    with Stack(mail=False, database="postgres") as stack:
        mount = os.path.join(stack.folder, "mount")

        def version(name, *lines):
            os.makedirs(os.path.join(mount, name))
            path = os.path.join(mount, name, "config.key")
            with open(path, "w") as f:
                f.write("".join(f"key {key} {digit * 64}\n" for key, digit in lines))
            if os.geteuid() == 0:
                os.chown(path, 1, NOBODY)  # given to the user that runs config, and to root, who runs the test
            os.chmod(path, 0o440 if os.geteuid() == 0 else 0o400)
            os.symlink(name, os.path.join(mount, "..data_tmp"))
            os.rename(os.path.join(mount, "..data_tmp"), os.path.join(mount, "..data"))
            os.chmod(os.path.join(mount, name), 0o555)

        os.makedirs(mount)
        version("v1", ("old", "1"))
        key_file = os.path.join(mount, "config.key")
        os.symlink("..data/config.key", key_file)
        # A program that another user reaches too.
        program = os.path.join(stack.folder, "poststelle-config")
        shutil.copy(binary("poststelle-config"), program)
        user = (NOBODY, NOBODY) if os.geteuid() == 0 else None
        make_reachable(program)
        os.chmod(stack.folder, 0o755)
        arguments = list(stack.config.arguments)
        arguments[arguments.index("--key-file") + 1] = key_file
        home = os.path.join(stack.folder, "nobody")
        os.makedirs(home)
        identities = os.path.join(home, "identities")
        shutil.copy(stack.identities.path, identities)
        arguments[arguments.index("--identities-file") + 1] = identities
        if user:
            for path in (home, identities):
                os.chown(path, *user)
        assert stack.config.stop() == 0
        os.remove(os.path.join(stack.folder, "config.key"))  # nobody uses that one
        stack.config.arguments = arguments
        port_file = os.path.join(home, "config.port")
        process = Process("config-nobody", [program, "--listen", "127.0.0.1:0", "--port-file", port_file, *arguments], stack.folder,
                          user=user)
        wait_until(lambda: os.path.exists(port_file) or not process.running(), what="config to serve")
        with open(port_file) as f:
            stack.config.address = f.read().split()[0]
        wait_until(lambda: '"dependency":"database","ready":true' in process.log(), what="its database")
        config = Config(stack)
        config.create("before", "secret-1")
        assert list(usage(stack, key_file=key_file)) == ["old"]
        version("v2", ("new", "2"), ("old", "1"))
        config.create("after", "secret-2")
        state = usage(stack, key_file=key_file)
        assert {key: value[0] for key, value in state.items()} == {"new": 1, "old": 1}

        def as_user(*words):
            run = Process("keys", command(stack, *words, key_file=key_file, program=program), stack.folder, user=user)
            assert run.child.wait(60) == 0, run.log()
            return run.log()

        said = as_user("rotate")
        assert "no key is made" in said and "1 passwords rewritten to key new, 1 were under it already" in said, said
        assert "not needed any more: old" in said
        said = as_user("prune")
        assert "out of use: old" in said and "take these lines out" in said, said
        version("v3", ("new", "2"))
        assert (config.password("before"), config.password("after")) == ("secret-1", "secret-2")
        assert {key: value[0] for key, value in usage(stack, key_file=key_file).items()} == {"new": 2}
        assert process.stop() == 0


def test_mistakes_are_named(tmp_path):
    with Stack(mail=False) as stack:
        assert "--key-file: " in keys(stack, "list", code=1, key_file=str(tmp_path / "nowhere"))
        assert not os.path.exists(tmp_path / "nowhere")
        assert "subcommand" in keys(stack, code=2)
        assert "A subcommand is required" in keys(stack, code=2)
        config = Config(stack)
        config.create("box-1", "x")
        with open(os.path.join(stack.folder, "config.key")) as f:
            assert len(f.read().split()) == 3
        # A database whose passwords need another key than the file has.
        other = tmp_path / "other.key"
        other.write_text("key other " + "7" * 64 + "\n")
        other.chmod(0o600)
        said = keys(stack, "rotate", code=3, key_file=str(other))
        assert "1 secret can't be opened and stays as it was: mailboxes/box-1" in said, said
        assert config.password("box-1") == "x"
