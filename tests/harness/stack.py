"""config and fetcher with their servers around them, and the calls that tests make."""
import hashlib
import imaplib
import json
import os
import re
import secrets
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import shutil
import urllib.request

from servers import Authority, Dovecot, Postgres, Process, Redis, free_port, wait_until

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.environ.get("POSTSTELLE_BUILD", os.path.join(ROOT, "build", "release"))
sys.path.insert(0, os.path.join(BUILD, "gen_python"))

import google  # noqa: E402

google.__path__.append(os.path.join(BUILD, "gen_python", "google"))  # google.rpc beside Debian's google.protobuf

import grpc  # noqa: E402

grpc.__path__.append(os.path.join(BUILD, "gen_python", "grpc"))  # grpc.reflection beside Debian's grpc

from poststelle.config.v1 import mailbox_pb2, mailbox_service_pb2, mailbox_service_pb2_grpc  # noqa: E402
from poststelle.fetcher.v1 import (fetch_service_pb2, fetch_service_pb2_grpc, message_service_pb2,  # noqa: E402
                                   message_service_pb2_grpc, ticket_feed_service_pb2, ticket_feed_service_pb2_grpc)

LOOPBACK = "127.0.0.0/8,::1"  # where the tests' own mail servers are
ROLES = ("viewer", "operator", "admin", "consumer", "service")
ACCOUNTS = {"support@localhost": "sup port\"1", "sales@localhost": "sälés-2"}


def binary(name):
    return os.path.join(BUILD, "bin", name)


def write_secret(path, text):
    """Moved into place, for its owner alone."""
    with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
        f.write(text)
    os.rename(path + ".new", path)
    return path


class Identities:
    """Callers that services know: one of each role, named like it, each with its token in a file of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.path = os.path.join(folder, "identities")
        self.tokens = {role: secrets.token_hex(32) for role in ROLES}
        for role, token in self.tokens.items():
            write_secret(self.token_file(role), token + "\n")
        self.write(self.tokens)

    def write(self, tokens):
        """The file; the viewer's line has the token itself, the others its hash: both forms that there are."""
        lines = [f"{role} {role} " + (token if role == "viewer" else "sha256:" + hashlib.sha256(token.encode()).hexdigest())
                 for role, token in tokens.items()]
        write_secret(self.path, "\n".join(lines) + "\n")

    def token_file(self, role):
        return os.path.join(self.folder, f"{role}.token")

    def arguments(self, loopback=True):
        """Of a service that knows them; with `loopback`, whoever has no token is an admin."""
        return ["--identities-file", self.path, *(["--allow-unauthenticated-loopback"] if loopback else [])]


class Service:
    """One of our services; knows its addresses once it serves."""

    def __init__(self, name, program, folder, arguments, env=None, port=0):
        self.name, self.program, self.folder, self.arguments, self.env = name, program, folder, arguments, env or {}
        self.port = port
        self.process = None

    def argv(self, port_file):
        return [binary(self.program), "--listen", f"127.0.0.1:{self.port}", "--metrics-address", "127.0.0.1:0", "--port-file",
                port_file, *self.arguments]

    def start(self, env=None, wait=True):
        """Returns when its database is ready; without `wait` at once."""
        self.port_file = os.path.join(self.folder, f"{self.name}.port")
        if os.path.exists(self.port_file):
            os.remove(self.port_file)
        earlier = len(self.process.log()) if self.process else 0
        self.process = Process(self.name, self.argv(self.port_file), self.folder, {**self.env, **(env or {})})
        if wait:
            self.reach()
            # By its log: a failpoint may stop or end the process before it could be asked.
            told = '"dependency":"database","ready":true'
            wait_until(lambda: told in self.process.log()[earlier:] or not self.alive(), what=f"{self.name} to have its database")

    def alive(self):
        if not self.process.running():
            raise RuntimeError(f"{self.name} ended:\n{self.process.log()[-2000:]}")
        return True

    def reach(self):
        """Waits until it can be reached, which says nothing of its database."""
        wait_until(lambda: os.path.exists(self.port_file) or not self.alive(), what=f"{self.name} to serve")
        with open(self.port_file) as f:
            self.address, self.metrics = f.read().split()
        self.port = int(self.address.rsplit(":", 1)[1])  # the same one after a restart

    def samples(self, name):
        """{labels as they are printed: value} of the metric of that name."""
        text = urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10).read().decode()
        return {match[1]: float(match[2]) for match in re.finditer(rf"^{name}(?:{{(.*)}})? (\S+)$", text, re.M)}

    def dependencies(self):
        return {labels.split('"')[1]: value == 1 for labels, value in self.samples("poststelle_dependency_ready").items()}

    def health(self, service=b""):
        """Whether a probe for that service would succeed (grpc.health.v1, in raw bytes)."""
        request = bytes([0x0A, len(service)]) + service if service else b""
        with grpc.insecure_channel(self.address) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check", lambda raw: raw, lambda raw: raw)
            return check(request, timeout=20) == b"\x08\x01"

    def kill(self):
        if self.process:
            self.process.kill()

    def stop(self):
        return self.process.stop() if self.process else 0


class Feed:
    """A subscriber that writes down every event, in a thread of its own."""

    def __init__(self, address, name="test", from_beginning=True):
        self.events = []
        self.channel = grpc.insecure_channel(address)
        self.requests = []
        self.wake = threading.Condition()
        self.closed = False
        start = ticket_feed_service_pb2.SubscribeRequest()
        start.start.subscription = name
        setattr(start.start, "from", 1 if from_beginning else 2)
        self.requests.append(start)
        self.call = ticket_feed_service_pb2_grpc.TicketFeedServiceStub(self.channel).Subscribe(self._outgoing())
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _outgoing(self):
        while True:
            with self.wake:
                while not self.requests and not self.closed:
                    self.wake.wait()
                if self.closed and not self.requests:
                    return
                request = self.requests.pop(0)
            yield request

    def _read(self):
        try:
            for response in self.call:
                if response.WhichOneof("response") != "delivery":
                    continue
                event = response.delivery.event
                self.events.append(event)
                ack = ticket_feed_service_pb2.SubscribeRequest()
                ack.acknowledge.position.CopyFrom(event.position)
                ack.acknowledge.generation = response.delivery.generation
                with self.wake:
                    self.requests.append(ack)
                    self.wake.notify()
        except grpc.RpcError:
            pass  # the service went away; what was received stays

    def close(self):
        with self.wake:
            self.closed = True
            self.wake.notify()
        self.call.cancel()
        self.thread.join(10)
        self.channel.close()


class Stack:
    sender = None

    def __init__(self, folder=None, mail=True, fetcher_program="poststelle-fetcher", fetcher_arguments=(), lease="2s",
                 database="sqlite", accounts=ACCOUNTS, any_password=None, egress_allow=LOOPBACK, loopback=True,
                 config_arguments=(), sender=False, sender_arguments=()):
        """`database`: "sqlite" or "postgres". `accounts`: those of the mail server, with their passwords; with `any_password`
        it is one that bears many sessions. `egress_allow`: where mail servers may be that are not public; None leaves it at the
        default. `loopback`: callers that bring no token are admins. `config_arguments`: further ones of config. `sender`: start
        one, too."""
        self.accounts = accounts
        self.own_folder = folder is None
        self.others = []
        self.folder = folder or tempfile.mkdtemp(prefix="poststelle-")
        os.makedirs(self.folder, exist_ok=True)
        self.redis = Redis(self.folder)
        self.dovecot = self.postgres = None
        if database == "postgres":
            self.postgres = Postgres(self.folder)
            urls = {name: self.postgres.create_database(name) for name in ("config", "fetcher")}
        else:
            urls = {name: f"sqlite:{self.folder}/{name}.db" for name in ("config", "fetcher")}
        if mail:
            self.mail_folder = tempfile.mkdtemp(prefix="poststelle-mail-")
            self.authority = Authority(self.mail_folder)
            self.dovecot = Dovecot(self.mail_folder, self.authority, accounts, any_password)
        self.identities = Identities(self.folder)
        ports = {name: free_port() for name in ("fetcher", "sender")}  # config and fetcher name each other's address
        self.config = Service("config", "poststelle-config", self.folder,
                              ["--database", urls["config"], "--key-file", f"{self.folder}/config.key",
                               "--min-fetch-interval", "100ms", "--fetcher-address", f"127.0.0.1:{ports['fetcher']}",
                               "--sender-address", f"127.0.0.1:{ports['sender']}", "--service-token-file",
                               self.identities.token_file("service"), *self.identities.arguments(loopback)])
        self.config.start()
        self.fetcher = Service("fetcher", fetcher_program, self.folder,
                               ["--database", urls["fetcher"], "--redis", self.redis.url, "--config-address",
                                self.config.address, "--config-token-file", self.identities.token_file("service"), "--lease",
                                lease, *(["--egress-allow", egress_allow] if egress_allow else []),
                                *self.identities.arguments(loopback), *fetcher_arguments], port=ports["fetcher"])
        self.sender = Service("sender", "poststelle-sender", self.folder,
                              [*(["--egress-allow", egress_allow] if egress_allow else []),
                               *self.identities.arguments(loopback), *sender_arguments], port=ports["sender"]) if sender else None

    def start(self, **kwargs):
        if self.sender:
            self.sender.start(wait=False)
            self.sender.reach()
        self.fetcher.start(**kwargs)
        if kwargs.get("wait", True):
            wait_until(self.serving, what="the fetcher to be ready")
        return self

    def another_fetcher(self, name, program=None, redis=None):
        """One more worker on the same database; `redis`: another Redis than the stack's. Not started."""
        arguments = list(self.fetcher.arguments)
        if redis is not None:
            arguments[arguments.index("--redis") + 1] = redis.url
        service = Service(name, program or self.fetcher.program, self.folder, arguments)
        self.others.append(service)
        return service

    def serving(self):
        """Whether the fetcher has its database, its mailboxes and Redis."""
        try:
            return self.fetcher.health()
        except grpc.RpcError:
            return False

    def environment_of_config(self):
        return {"POSTSTELLE_CONFIG_ADDRESS": self.config.address}

    def environment(self):
        return {"POSTSTELLE_CONFIG_ADDRESS": self.config.address, "POSTSTELLE_FETCHER_ADDRESS": self.fetcher.address}

    def cli(self, *arguments, password=None, check=True):
        env = {**os.environ, "POSTSTELLE_CONFIG_ADDRESS": self.config.address,
               "POSTSTELLE_FETCHER_ADDRESS": getattr(self.fetcher, "address", "127.0.0.1:1")}
        if password is not None:
            env["POSTSTELLE_MAILBOX_PASSWORD"] = password
        return subprocess.run([binary("poststelle"), *arguments], env=env, capture_output=True, check=check, timeout=120)

    def create_mailbox(self, account="support@localhost", name=None, encryption="tls", interval="200ms", host="localhost",
                       port=None, password=None, ca=True, extra=()):
        port = port or self.dovecot.ports["imaps" if encryption == "tls" else "imap"]
        arguments = ["-o", "json", "mailbox", "create", "--name", name or account, "--address", account, "--host", host, "--port",
                     str(port), "--encryption", encryption, "--interval", interval, *extra]
        if ca:
            arguments += ["--ca-file", self.authority.path if ca is True else ca]
        done = self.cli(*arguments, password=self.accounts.get(account, "x") if password is None else password, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.decode())
        name = json.loads(done.stdout)["name"]
        if self.fetcher.process and self.fetcher.process.running():
            wait_until(lambda: self.known(name), what=f"the fetcher to know {name}")
        return name

    def change_mailbox(self, mailbox, change):
        """As a program does it: reads the mailbox, lets `change` edit it, writes it back."""
        with self.channel(self.config) as channel:
            stub = mailbox_service_pb2_grpc.MailboxServiceStub(channel)
            present = stub.GetMailbox(mailbox_service_pb2.GetMailboxRequest(name=mailbox), timeout=20).mailbox
            change(present)
            request = mailbox_service_pb2.UpdateMailboxRequest(mailbox=present)
            request.update_mask.paths.append("*")
            stub.UpdateMailbox(request, timeout=20)

    def after_import(self, mailbox, action, target=""):
        """`action`: leave, mark_seen, move or delete."""
        def change(present):
            present.import_options.after_import.action = mailbox_pb2.AfterImport.Action.Value(f"ACTION_{action.upper()}")
            present.import_options.after_import.target_folder = target
        self.change_mailbox(mailbox, change)

    def listing(self, account, folder="INBOX"):
        """[(subject, flags)] of a folder as a mail program sees it."""
        with self.sign_in(account) as client:
            if client.select(f'"{folder}"', readonly=True)[0] != "OK":
                raise RuntimeError(f"no folder {folder}")
            data = client.uid("FETCH", "1:*", "(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]
            found = []
            for item in data:
                if isinstance(item, tuple):
                    flags = re.search(r"FLAGS \(([^)]*)\)", item[0].decode()).group(1).split()
                    found.append((item[1].decode().split(":", 1)[1].strip(), flags))
            return found

    def sign_in(self, account):
        """A mail program's session."""
        client = imaplib.IMAP4_SSL("localhost", self.dovecot.ports["imaps"],
                                   ssl_context=ssl.create_default_context(cafile=self.authority.path))
        client.login(account, self.accounts[account])
        return client

    def known(self, mailbox):
        try:
            return self.status(mailbox) is not None
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return False
            raise

    def channel(self, service):
        return grpc.insecure_channel(service.address)

    def status(self, mailbox):
        with self.channel(self.fetcher) as channel:
            stub = fetch_service_pb2_grpc.FetchServiceStub(channel)
            return stub.GetStatus(fetch_service_pb2.GetStatusRequest(mailbox=mailbox), timeout=20).status

    def metric(self, name, service=None):
        text = urllib.request.urlopen(f"http://{(service or self.fetcher).metrics}/metrics", timeout=10).read().decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))

    def alter_ledger(self, sql):
        """Behind the fetcher's back, while it is down."""
        if self.postgres:
            self.postgres.query("fetcher", sql)
        else:
            with sqlite3.connect(f"{self.folder}/fetcher.db") as ledger:
                ledger.execute(sql)

    def raw(self, message):
        with self.channel(self.fetcher) as channel:
            stub = message_service_pb2_grpc.MessageServiceStub(channel)
            return b"".join(p.data for p in stub.DownloadRaw(message_service_pb2.DownloadRawRequest(name=message)))

    def explain(self, mailbox, message_id):
        with self.channel(self.fetcher) as channel:
            stub = message_service_pb2_grpc.MessageServiceStub(channel)
            return stub.Explain(message_service_pb2.ExplainRequest(mailbox=mailbox, message_id=message_id), timeout=60).outcomes

    def idle(self, mailbox, polls=2):
        """Waits until that many further polls went well with nothing left to fetch."""
        done = []
        wait_until(lambda: self.known(mailbox), what=f"the fetcher to know {mailbox}")  # it may have started just now
        def settled():
            s = self.status(mailbox)
            stamp = s.last_success_time.ToNanoseconds()
            if stamp and (not done or done[-1] != stamp):
                done.append(stamp)
            return len(done) > polls and s.pending == 0
        wait_until(settled, 90, f"{mailbox} to be idle")

    def stop(self):
        for service in (*self.others, *([self.sender] if self.sender else []), self.fetcher, self.config):
            try:
                service.stop()
            except subprocess.TimeoutExpired:
                service.kill()
        if self.dovecot:
            self.dovecot.stop()
            shutil.rmtree(self.mail_folder, ignore_errors=True)
        self.redis.stop()
        if self.postgres:
            self.postgres.stop("immediate")
        if self.own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
