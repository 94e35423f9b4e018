"""A password that is looked for everywhere after it was used in every way: it is nowhere. And the search can find it."""
import glob
import os
import secrets
import subprocess
import sys
import urllib.request

import grpc
import pytest

from canary import Searcher, processes_below, spellings
from keys import Config, command, keys, mailbox, reason
from samples import mail
from servers import Listener, Process, wait_until
from stack import Stack, mailbox_service_pb2, mailbox_service_pb2_grpc

ACCOUNT, OTHER = "support@localhost", "sales@localhost"


class Parrot(Listener):
    """An IMAP server that refuses the sign-in and repeats what it was given, in several ways."""

    def _serve(self, client):
        try:
            client.sendall(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n")
            for line in client.makefile("rb"):
                tag, rest = line.rstrip(b"\r\n").split(b" ", 1)
                client.sendall(tag + (b" NO " if len(rest) % 2 else b" BAD ") + rest + b" failed\r\n")
        except OSError:
            pass


class Recorder(grpc.UnaryUnaryClientInterceptor):
    """Keeps what the services answered: messages, errors and their details."""

    def __init__(self):
        self.answers, self.errors = [], []

    def intercept_unary_unary(self, continuation, details, request):
        call = continuation(details, request)
        error = call.exception()
        if error is None:
            # The one answer that is there to hand the password out.
            if not details.method.endswith("/GetCredentials"):
                answer = call.result()
                self.answers.append(answer if isinstance(answer, bytes) else answer.SerializeToString())
        else:
            self.errors.append(f"{details.method} {call.code()} {call.details()}".encode() +
                               b"".join(value if isinstance(value, bytes) else value.encode()
                                        for _, value in (*(call.trailing_metadata() or ()), *(call.initial_metadata() or ()))))
        return call


def new_secret():
    """A password with what escapes differently, around letters and digits that survive all escaping."""
    core = "Kanari" + secrets.token_hex(12)
    return f'pä s"\\{core}%+/ß', core


def environment_and_arguments(pid):
    data = b""
    for name in ("cmdline", "environ"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as f:
                data += f.read()
        except PermissionError:
            pass  # nobody else of this user can read it either
    return data


def use_everywhere(stack, password, config, parrot, outputs):
    """Every way that a password goes, well and badly."""
    def refused(call, *arguments, **kwargs):
        with pytest.raises(grpc.RpcError) as error:
            call(*arguments, **kwargs)
        return error.value

    good = stack.create_mailbox(ACCOUNT, name="Good")  # by the command line, password from the environment
    good_id = good.split("/")[1]
    stack.dovecot.deliver(ACCOUNT, mail("Hello", "It works."))
    wait_until(lambda: stack.status(good).last_success_time.seconds, 60, "a sign-in that works")
    config.update(good_id, password=password)
    config.create("again", password, request_id="repeat-1")
    config.create("again", password, request_id="repeat-1")
    assert reason(refused(config.create, "again", password + "2", request_id="repeat-1")) == "REQUEST_ID_REUSED"
    assert reason(refused(config.create, "again", password)) == "MAILBOX_EXISTS"
    for words in (("mailbox", "list"), ("-o", "json", "mailbox", "get", good_id), ("mailbox", "update", good_id, "--host", "x y"),
                  ("mailbox", "update", "nobody-there", "--disabled"), ("mailbox", "create", "--name", "Good", "--address", "a@b",
                                                                       "--host", "h")):
        done = stack.cli(*words, password=password, check=False)
        outputs += [done.stdout, done.stderr]

    # Fields that refuse it, and fields that it does not belong in.
    for wrong in (password + "\r\n", password + "\0", password * 60):
        assert reason(refused(config.create, "wrong", wrong)) == "INVALID_FIELDS"
        assert reason(refused(config.update, good_id, password=wrong)) == "INVALID_FIELDS"
    request = mailbox_service_pb2
    misplaced = mailbox("A\n" + password, "", host=password)
    misplaced.address = misplaced.password_authentication.login_name = password + "\n"
    misplaced.import_options.folders.append(password + "\n")
    misplaced.connection.ca_certificates_pem = password
    stub = config.mailboxes
    for call, message in (
            (stub.CreateMailbox, request.CreateMailboxRequest(mailbox=misplaced, mailbox_id=password, request_id=password * 3)),
            (stub.GetMailbox, request.GetMailboxRequest(name=password)),
            (stub.GetMailbox, request.GetMailboxRequest(name="mailboxes/" + password)),
            (stub.DeleteMailbox, request.DeleteMailboxRequest(name=password)),
            (stub.DeleteMailbox, request.DeleteMailboxRequest(name=good, etag=password)),
            (stub.ListMailboxes, request.ListMailboxesRequest(page_token=password))):
        refused(call, message, timeout=60)
    try:
        next(iter(stub.WatchMailboxes(request.WatchMailboxesRequest(resume_token=password), timeout=60)))
        raise AssertionError("not refused")
    except grpc.RpcError as error:
        outputs.append(str(error))
    config.create("keeps", password)
    elsewhere = request.UpdateMailboxRequest()
    elsewhere.mailbox.name, elsewhere.mailbox.connection.host = "mailboxes/keeps", "thief.example.org"
    elsewhere.update_mask.paths.append("connection.host")
    assert reason(refused(stub.UpdateMailbox, elsewhere)) == "INVALID_FIELDS"
    bad_token = (("authorization", f"Bearer {password}".encode("ascii", "ignore").decode()),)
    config.metadata, kept = bad_token, config.metadata
    refused(config.password, good_id)
    config.metadata = kept
    assert config.password(good_id) == password

    # Sign-ins that fail: refused by the server, repeated by a server, no TLS there, a certificate that is not trusted,
    # nobody listening.
    states = {}
    for name, expected, kwargs in (
            ("refused", "AUTHENTICATION_REJECTED", {"account": OTHER}),
            ("parrot", None, {"port": parrot.port, "encryption": "none", "ca": False}),
            ("clear", "TLS_FAILED", {"port": stack.dovecot.ports["imap"]}),
            ("untrusted", "CERTIFICATE_UNTRUSTED", {"ca": False}),
            ("closed", "CONNECTION_REFUSED", {"port": 1})):
        made = stack.create_mailbox(**{"account": ACCOUNT, "name": name, "password": password, **kwargs})
        status = wait_until(lambda: (s := stack.status(made)).reason and s, 60, f"{name} to fail")
        assert expected in (None, status.reason), status
        states[name] = status.reason
        outputs.append(status.SerializeToString())
    # A key that goes, and what the commands say meanwhile.
    outputs += [keys(stack, word) for word in ("rotate", "list", "prune")]
    return states


@pytest.mark.parametrize("database", ("sqlite", "postgres"))
def test_the_password_is_nowhere(database, monkeypatch):
    password, core = new_secret()
    planted, planted_core = new_secret()
    search, search_planted = Searcher(password, core), Searcher(planted, planted_core)
    recorder = Recorder()
    for service in ("CONFIG", "FETCHER"):
        monkeypatch.setenv(f"POSTSTELLE_{service}_LOG_LEVEL", "debug")
    plain_channel = grpc.insecure_channel
    monkeypatch.setattr(grpc, "insecure_channel", lambda *a, **k: grpc.intercept_channel(plain_channel(*a, **k), recorder))
    # The account whose password it is; the other one has another, so that a sign-in there is refused.
    accounts = {ACCOUNT: password, OTHER: "another one"}
    with Stack(database=database, accounts=accounts) as stack:
        if stack.postgres:
            # The server writes down all that it is told, values included.
            for setting in ("log_statement = 'all'", "log_parameter_max_length = -1", "log_parameter_max_length_on_error = -1"):
                stack.postgres.query("config", f"ALTER SYSTEM SET {setting}")
            stack.postgres.query("config", "SELECT pg_reload_conf()")
        stack.start()
        monitor = Process("redis-monitor", ["redis-cli", "-p", str(stack.redis.port), "monitor"], stack.folder)
        parrot = Parrot()
        config = Config(stack)
        outputs = []
        states = use_everywhere(stack, password, config, parrot, outputs)
        assert stack.fetcher.alive() and stack.config.alive()
        metrics = [urllib.request.urlopen(f"http://{s.metrics}/metrics", timeout=10).read() for s in (stack.config, stack.fetcher)]

        # The same places with something in them that must be found.
        config.create("planted", "x", host="h" + planted_core)
        plant_name = mailbox_service_pb2.UpdateMailboxRequest()
        plant_name.mailbox.name, plant_name.mailbox.display_name = "mailboxes/planted", planted
        plant_name.update_mask.paths.append("display_name")
        config.mailboxes.UpdateMailbox(plant_name)
        with pytest.raises(grpc.RpcError) as taken:
            config.mailboxes.CreateMailbox(mailbox_service_pb2.CreateMailboxRequest(mailbox=mailbox(planted, "x")))
        assert reason(taken.value) == "DISPLAY_NAME_TAKEN"
        logged = stack.create_mailbox(name="Plants a log line", host=f"{planted_core}.invalid", port=993, password="x")
        wait_until(lambda: stack.status(logged).reason, 60, "a log line")
        stack.redis.command("set", "planted", planted)
        carrier = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()", planted_core], stdin=subprocess.PIPE,
                                   env={**os.environ, "PLANTED": planted})

        places = {}  # name: what each searcher found

        def look(place, *blobs):
            hits, plants = places.setdefault(place, [[], []])
            for blob in blobs:
                hits += search.search(blob)
                plants += search_planted.search(blob)

        def look_at_files(place, *paths, skip=()):
            hits, plants = places.setdefault(place, [[], []])
            for path in paths:
                if os.path.isdir(path):
                    hits += [item for item in search.search_tree(path, skip).items()]
                    plants += [item for item in search_planted.search_tree(path, skip).items()]
                else:
                    with open(path, "rb") as f:
                        look(place, f.read())

        look("errors of the API", *recorder.errors)
        look("answers of the API", *recorder.answers)
        look("what the command line prints", *outputs)
        places["what the command line prints"][1] += search_planted.search(stack.cli("mailbox", "list").stdout)
        look("metrics", *metrics)
        # Nothing of ours gets a foreign word into a metric, so it is added to the page.
        places["metrics"][1] += search_planted.search(metrics[0] + f'# {planted}'.encode())
        pids = [p for s in (stack.config, stack.fetcher) for p in processes_below(s.process.child.pid)]
        assert len(pids) >= 3, "config, fetcher and a parser"
        look("arguments and environments", *[environment_and_arguments(pid) for pid in pids],
             "\0".join(command(stack, "list")))
        places["arguments and environments"][1] += search_planted.search(environment_and_arguments(carrier.pid))
        carrier.communicate()
        assert stack.redis.command("save").strip() == "OK"
        look_at_files("Redis, saved", os.path.join(stack.folder, "dump.rdb"))
        wait_until(lambda: planted_core in monitor.log(), what="MONITOR to catch up")
        look_at_files("Redis, every command", os.path.join(stack.folder, "redis-monitor.log"))
        logs = [os.path.join(stack.folder, f"{name}.log") for name in ("config", "fetcher")]
        look_at_files("logs", *logs)
        if stack.postgres:
            stack.postgres.query("config", "CHECKPOINT")
            look_at_files("PostgreSQL, data and WAL", stack.postgres.folder)
            look_at_files("PostgreSQL, log of all statements", os.path.join(stack.folder, "postgres.log"))
            for name in ("config", "fetcher"):
                dump = subprocess.run([os.path.join(stack.postgres.bin, "pg_dump"), "-h", "127.0.0.1", "-p", str(stack.postgres.port),
                                       "-U", "postgres", "--inserts", name], capture_output=True, check=True, cwd="/").stdout
                look("PostgreSQL, dump", dump)
        else:
            look_at_files("SQLite, files and WAL", *glob.glob(f"{stack.folder}/*.db*"))
        # And whatever else lies there, but for the mail server's own list of passwords (another folder).
        look_at_files("the whole folder", stack.folder)
        monitor.kill()
        parrot.close()

        print(f"\n{database}: {search.places} texts, {search.bytes} bytes, {len(search.needles)} spellings, states {states}, "
              f"{len(recorder.errors)} errors, {len(recorder.answers)} answers")
        for place, (hits, plants) in places.items():
            print(f"  {place}: {len(hits)} hits, planted: {len(plants)}")
        assert {place: hits for place, (hits, _) in places.items() if hits} == {}
        assert [place for place, (_, plants) in places.items() if not plants] == [], "what is planted there is not found"


@pytest.mark.parametrize("what", ("secret", "core"))
def test_the_search_finds_every_spelling_in_every_surrounding(what):
    secret, core = new_secret()
    search = Searcher(secret, core)
    word = secret if what == "secret" else core
    for name, spelled in spellings(word).items():
        for before, after in ((b"", b""), (b"{\"error\":\"", b"\"}\n"), (b"\0\xff\x01", b"\x80\0"), (b"x" * 70000, b"y")):
            assert search.search(before + spelled + after), name
    assert search.search(b"nothing of it") == []
    other, _ = new_secret()
    assert search.search(other) == []
