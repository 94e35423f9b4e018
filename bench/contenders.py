"""The mail server, and what is measured against it: the whole product, the ceiling, imapflow with mailparser."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), ".."))
sys.path.insert(0, os.path.join(ROOT, "tests", "harness"))

from servers import Authority, Dovecot, wait_until  # noqa: E402
from stack import BUILD, Feed, Stack, binary  # noqa: E402

from google.protobuf import field_mask_pb2  # noqa: E402
from poststelle.config.v1 import mailbox_service_pb2, mailbox_service_pb2_grpc  # noqa: E402

from corpus import Corpus  # noqa: E402

PASSWORD = "bench"
TICK = os.sysconf("SC_CLK_TCK")


class MailServer:
    """A tuned Dovecot whose Maildirs are filled by writing the files."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="poststelle-bench-mail-")
        self.authority = Authority(self.folder)
        self.dovecot = Dovecot(self.folder, self.authority, {}, any_password=PASSWORD)
        self.port = self.dovecot.ports["imaps"]
        self.bytes = 0

    def fill(self, accounts, mails_each, seed=1):
        corpus = Corpus(seed)
        number = 0
        for account in accounts:
            for sub in ("cur", "new", "tmp"):
                os.makedirs(os.path.join(self.dovecot.maildir(account), sub), exist_ok=True)
            for _ in range(mails_each):
                raw = corpus.mail(number)
                number += 1
                self.bytes += len(raw)
                # The sizes stand in the name, as delivery agents write them.
                name = f"{1700000000 + number}.{number}.bench,S={len(raw)},W={len(raw)}"
                with open(os.path.join(self.dovecot.maildir(account), "new", name), "wb") as out:
                    out.write(raw)
        self.dovecot._own(os.path.join(self.dovecot.folder, "mail"))

    def accounts_file(self, accounts):
        path = os.path.join(self.folder, "accounts")
        with open(path, "w") as out:
            out.write("".join(account + "\n" for account in accounts))
        return path

    def stop(self):
        self.dovecot.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def processes_below(pid):
    """`pid` and its children."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            direct = f.read().split()
        out = [pid] + [int(c) for c in direct]
        for task in os.listdir(f"/proc/{pid}/task"):  # children belong to the thread that made them
            with open(f"/proc/{pid}/task/{task}/children") as f:
                out += [int(c) for c in f.read().split()]
        return sorted(set(out))
    except OSError:
        return [pid]


def cpu_of(pid):
    """User and system seconds of a process, of its children, and of those that have ended."""
    total = 0
    for i, each in enumerate(processes_below(pid)):
        try:
            with open(f"/proc/{each}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it ended meanwhile
        total += sum(int(x) for x in fields[11:15 if each == pid else 13])
    return total / TICK


def peak_mb(pid):
    total = 0
    for each in processes_below(pid):
        try:
            with open(f"/proc/{each}/status") as f:
                total += sum(int(line.split()[1]) for line in f if line.startswith("VmHWM"))
        except OSError:
            continue
    return total / 1024


class Product:
    """config and fetcher with fresh databases, beside a mail server that is there already."""

    def __init__(self, server, fetcher_arguments=(), port=None, lease="30s"):
        self.server, self.port = server, port or server.port
        self.stack = Stack(mail=False, fetcher_arguments=fetcher_arguments, lease=lease)
        self.stack.start()
        self.pid = self.stack.fetcher.process.child.pid
        self.channel = self.stack.channel(self.stack.config)
        self.mailboxes = mailbox_service_pb2_grpc.MailboxServiceStub(self.channel)
        self.names = []

    def create(self, accounts, interval_ms=3_600_000, enabled=True):
        with open(self.server.authority.path) as f:
            ca = f.read()
        for account in accounts:
            request = mailbox_service_pb2.CreateMailboxRequest()
            m = request.mailbox
            m.display_name, m.address, m.direction, m.enabled = account, account + "@localhost", 1, enabled
            m.connection.protocol, m.connection.host, m.connection.port, m.connection.encryption = 1, "localhost", self.port, 3
            m.connection.ca_certificates_pem = ca
            m.password_authentication.login_name, m.password_authentication.password = account, PASSWORD
            m.import_options.fetch_interval.FromMilliseconds(interval_ms)
            m.import_options.unlimited_age = True
            self.names.append(self.mailboxes.CreateMailbox(request, timeout=60).mailbox.name)
        wait_until(lambda: self.stack.known(self.names[-1]), 120, "the fetcher to know the mailboxes")

    def enable_all(self):
        calls = []
        for name in self.names:
            request = mailbox_service_pb2.UpdateMailboxRequest(update_mask=field_mask_pb2.FieldMask(paths=["enabled"]))
            request.mailbox.name, request.mailbox.enabled = name, True
            calls.append(self.mailboxes.UpdateMailbox.future(request, timeout=60))
        for call in calls:
            call.result()

    def published(self):
        return int(self.stack.metric("poststelle_fetcher_messages_published_total"))

    def polls(self):
        return int(self.stack.metric('poststelle_fetcher_polls_total{outcome="ok"}'))

    def failed(self):
        return int(self.stack.metric('poststelle_fetcher_polls_total{outcome="failed"}'))

    def import_all(self, mails, timeout=1800):
        """From enabling the mailboxes to the last event committed."""
        cpu, begin = cpu_of(self.pid), time.monotonic()
        self.enable_all()
        enabled = time.monotonic() - begin
        wait_until(lambda: self.published() >= mails, timeout, f"{mails} mails to be published")
        seconds = time.monotonic() - begin
        return {"seconds": seconds, "cpu": cpu_of(self.pid) - cpu, "mails": self.published(), "rss_mb": peak_mb(self.pid),
                "failed_polls": self.failed(), "enabling_seconds": enabled}

    def poll_for(self, seconds):
        """What the worker does on its own meanwhile."""
        cpu, polls, begin = cpu_of(self.pid), self.polls(), time.monotonic()
        time.sleep(seconds)
        done = self.polls() - polls
        took = time.monotonic() - begin
        return {"seconds": took, "cpu": cpu_of(self.pid) - cpu, "polls": done, "rss_mb": peak_mb(self.pid),
                "failed_polls": self.failed()}

    def events(self, expected):
        """How many distinct mails a subscriber gets."""
        feed = Feed(self.stack.fetcher.address, "bench")
        try:
            wait_until(lambda: len(feed.events) >= expected, 300, f"{expected} events")
            return len({e.message.name for e in feed.events})
        finally:
            feed.close()

    def stop(self):
        self.channel.close()
        self.stack.stop()


def ceiling(server, accounts, sessions=1, mode="fetch", polls=0, resume=True, port=None):
    argv = [binary("imap_ceiling"), "--port", str(port or server.port), "--ca", server.authority.path, "--password", PASSWORD,
            "--accounts", server.accounts_file(accounts), "--sessions", str(sessions), "--mode", mode, "--polls", str(polls)]
    done = subprocess.run(argv + ([] if resume else ["--no-resume"]), capture_output=True, text=True, timeout=1800)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def imapflow_folder():
    """A copy of bench/imapflow with its packages, below build/."""
    source = os.path.join(ROOT, "bench", "imapflow")
    folder = os.path.join(ROOT, "build", "bench-imapflow")
    os.makedirs(folder, exist_ok=True)
    for name in ("client.mjs", "package.json", "package-lock.json"):
        shutil.copy(os.path.join(source, name), folder)
    if not os.path.isdir(os.path.join(folder, "node_modules", "imapflow")):
        subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True)
    return folder


def imapflow(server, accounts, sessions=1, mode="fetch", polls=0, port=None):
    options = {"port": port or server.port, "ca": server.authority.path, "password": PASSWORD,
               "accounts": server.accounts_file(accounts), "sessions": sessions, "mode": mode, "polls": polls}
    done = subprocess.run(["node", "client.mjs", json.dumps(options)], cwd=imapflow_folder(), capture_output=True, text=True,
                          timeout=1800)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def ledger_publication(engine, **options):
    """One result for each repetition of publish_bench."""
    return [json.loads(line) for line in run_bench("publish_bench", engine=engine, **options).splitlines()]


def schedule(**options):
    return json.loads(run_bench("schedule_bench", **options))


def run_bench(name, **options):
    argv = [binary(name)]
    for option, value in options.items():
        argv += ["--" + option.replace("_", "-"), str(value)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=3600)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return done.stdout
