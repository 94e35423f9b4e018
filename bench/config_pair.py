"""Two config processes on one database, and what config_bench does to them (bench/run config)."""
import json
import shutil
import subprocess
import tempfile

from contenders import run_bench
from servers import Postgres
from stack import Identities, Service, binary


class Echo:
    """The server that does nothing, to compare with."""

    def __init__(self):
        self.process = subprocess.Popen([binary("config_bench"), "--mode", "echo"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        self.address = self.process.stdout.readline().strip()

    def stop(self):
        self.process.communicate(timeout=30)


class ConfigPair:
    """`engine`: "sqlite" (synchronous FULL) or "postgres" (fsync on). Callers show a token."""

    def __init__(self, engine, mailboxes, arguments=()):
        self.folder = tempfile.mkdtemp(prefix="poststelle-bench-config-")
        self.mailboxes = mailboxes
        self.postgres = Postgres(self.folder, fsync=True) if engine == "postgres" else None
        database = self.postgres.create_database("config") if self.postgres else f"sqlite:{self.folder}/config.db"
        self.identities = Identities(self.folder)
        self.services = [Service(f"config-{i}", "poststelle-config", self.folder,
                                 ["--database", database, "--key-file", f"{self.folder}/config.key", *self.identities.arguments(False),
                                  *arguments]) for i in range(2)]
        try:
            for service in self.services:
                service.start()
            self.filled = self.run("fill", service=0)
        except BaseException:
            self.stop()
            raise

    def run(self, mode, service=None, **options):
        """What config_bench prints; against one of the processes, or both."""
        chosen = self.services if service is None else [self.services[service]]
        options = {"targets": ",".join(s.address for s in chosen), "token_file": self.identities.token_file("admin"),
                   "mailboxes": self.mailboxes, **options}
        return json.loads(run_bench("config_bench", mode=mode, **options))

    def load(self, call, **options):
        return self.run("load", service=0, call=call, **options)

    def echo_load(self, echo, **options):
        """The same calls to the server that does nothing."""
        return self.run("load", call="get", **{**options, "targets": echo.address})

    def sync(self, resume=""):
        """What a watcher gets that comes for the first time, or back with a token."""
        return self.run("sync", service=0, **({"resume": resume} if resume else {}))

    def restart(self):
        self.services[0].stop()
        self.services[0].start()

    def stop(self):
        for service in self.services:
            service.kill()
        if self.postgres:
            self.postgres.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)


def compare(engine, mailboxes, changes, watchers, seconds, repeat, concurrency=64):
    """All figures of one engine."""
    echo = Echo()
    pair = None
    try:
        pair = ConfigPair(engine, mailboxes)
        out = {"filled": pair.filled, "get": [], "list": [], "echo": [], "watch": [], "sync": [], "resume": []}
        for _ in range(repeat):
            load = {"seconds": seconds, "concurrency": concurrency}
            out["echo"].append(pair.echo_load(echo, **load))
            out["get"].append(pair.load("get", **load))
            out["list"].append(pair.load("list", **load))
            out["watch"].append(pair.run("watch", changes=changes, watchers=watchers))
            first = pair.sync()
            pair.run("change", service=1, changes=changes)
            pair.restart()
            out["sync"].append(first)
            out["resume"].append(pair.sync(first["token"]))
        return out
    finally:
        if pair:
            pair.stop()
        echo.stop()
