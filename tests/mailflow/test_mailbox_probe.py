"""`poststelle mailbox test` and `mailbox preview` against real servers: with the right settings, and with planted mistakes.

docs/mailbox-test.md holds what the test says about each mistake. POSTSTELLE_WRITE_DOCS=1 writes it anew."""
import json
import os
import re
import time

import grpc
import pytest

from servers import Listener, Postfix, Process, free_port, port_answers, wait_until
from stack import ROOT, Stack

from poststelle.config.v1 import mailbox_service_pb2, mailbox_service_pb2_grpc  # after stack, which knows where they are

DOCS = os.path.join(ROOT, "docs", "mailbox-test.md")
INBOUND, OUTBOUND = ("support@localhost", "sales@localhost")


class Says(Listener):
    """Says `greeting`, then answers each line that holds a key of `answers`; {} stands for the line's first word."""

    def __init__(self, greeting, answers=None):
        self.greeting, self.answers = greeting, answers or {}
        super().__init__()

    def _serve(self, client):
        try:
            client.sendall(self.greeting)
            for line in client.makefile("rb"):
                for word, answer in self.answers.items():
                    if word in line:
                        client.sendall(answer.replace(b"{}", line.split()[0]))
        except OSError:
            pass  # the client left


class World:
    def __init__(self, stack):
        self.stack, self.mail = stack, stack.mail_folder
        self.authority, self.dovecot = stack.authority, stack.dovecot
        self.postfix = Postfix(self.mail, self.authority, self.dovecot,
                               ["smtpd_delay_reject = no", "smtpd_sender_restrictions = check_sender_access inline:{support@localhost=REJECT}"])
        self.openers = []
        self.expired = self.tls_server("expired", days=-1)
        self.other_name = self.tls_server("other", host="mail.example.org")
        self.silent = self.opened(Says(b""))
        self.bye = self.opened(Says(b"* BYE too many connections from you\r\n"))
        self.garbage = self.opened(Says(b"SSH-2.0-OpenSSH_9.2\r\n"))
        self.no_starttls = self.opened(Says(b"* OK hello\r\n", {b"CAPABILITY": b"* CAPABILITY IMAP4rev1\r\n{} OK done\r\n"}))
        self.no_login = self.opened(Says(b"* OK [CAPABILITY IMAP4rev1 LOGINDISABLED] hello\r\n"))
        self.smtp_554 = self.opened(Says(b"554 5.7.1 you are blocked here\r\n"))
        self.smtp_plain = self.opened(Says(b"220 mx ESMTP\r\n", {b"EHLO": b"250 mx\r\n"}))

    def opened(self, server):
        self.openers.append(server)
        return server.port

    def tls_server(self, name, days=20, host="localhost"):
        certificate, key = self.authority.issue(name, days=days, host=host)
        port = free_port()
        server = Process(name, ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", certificate, "-key", key, "-rev"],
                         self.mail)
        self.openers.append(server)
        wait_until(lambda: port_answers(port), what="openssl s_server")
        return port

    def stop(self):
        self.postfix.stop()
        for opener in self.openers:
            (opener.kill if isinstance(opener, Process) else opener.close)()

    def test(self, direction, port, *extra, account=None, host="localhost", encryption="tls", ca=True, password=None, to=None):
        """(exit code, the last step, all ended steps) of `mailbox test --unsaved`."""
        account = account or (INBOUND if direction == "inbound" else OUTBOUND)
        arguments = ["-o", "json", "mailbox", "test", "--unsaved", f"--{direction}", "--address", account, "--host", host, "--port",
                     str(port), "--encryption", encryption, *(["--ca-file", self.authority.path] if ca else []),
                     *(["--to", to] if to else []), *extra]
        done = self.stack.cli(*arguments, password=password or self.stack.accounts[account], check=False)
        steps = [json.loads(line) for line in done.stdout.splitlines()]
        assert steps, done.stderr.decode()
        ended = [s for s in steps if s["outcome"] != "OUTCOME_RUNNING"]
        assert len(steps) == 2 * len(ended), steps  # each one has begun, too
        return done.returncode, ended[-1], ended


@pytest.fixture(scope="module")
def world():
    with Stack(sender=True, fetcher_arguments=["--command-timeout", "5s"], sender_arguments=["--command-timeout", "5s"]).start() as s:
        w = World(s)
        yield w
        w.stop()


def imap(world, port=None, **settings):
    extra = settings.pop("extra", ())
    return world.test("inbound", port or world.dovecot.ports["imaps"], *extra, **settings)


def smtp(world, port=None, **settings):
    extra = settings.pop("extra", ())
    return world.test("outbound", port or world.postfix.ports["submissions"], *extra, **settings)


# (what is wrong, how it is tried, the step that fails, the reason)
PIN = ("--pin", "0" * 64)
MISTAKES = [
    ("IMAP: no such server", lambda w: imap(w, host="no-such-host.invalid"), "NAME_LOOKUP", "HOST_UNKNOWN"),
    ("IMAP: address of an inner network", lambda w: imap(w, host="192.168.77.1"), "CONNECT", "ADDRESS_NOT_ALLOWED"),
    ("IMAP: nobody listens on the port", lambda w: imap(w, free_port()), "CONNECT", "CONNECTION_REFUSED"),
    ("IMAP: a port that never answers", lambda w: imap(w, w.silent), "TLS", "TIMEOUT"),
    ("IMAP: TLS on the STARTTLS port", lambda w: imap(w, w.dovecot.ports["imap"]), "TLS", "TLS_FAILED"),
    ("IMAP: clear text on the TLS port", lambda w: imap(w, encryption="none", ca=False), "GREETING", "TIMEOUT"),
    ("IMAP: STARTTLS on the TLS port", lambda w: imap(w, encryption="starttls"), "GREETING", "TIMEOUT"),
    ("IMAP: STARTTLS is not offered", lambda w: imap(w, w.no_starttls, encryption="starttls"), "TLS", "STARTTLS_MISSING"),
    ("IMAP: expired certificate", lambda w: imap(w, w.expired), "TLS", "CERTIFICATE_EXPIRED"),
    ("IMAP: certificate of another name", lambda w: imap(w, w.other_name), "TLS", "CERTIFICATE_NAME_MISMATCH"),
    ("IMAP: unknown issuer", lambda w: imap(w, ca=False), "TLS", "CERTIFICATE_UNTRUSTED"),
    ("IMAP: another key than the pinned one", lambda w: imap(w, ca=False, extra=PIN), "TLS", "CERTIFICATE_KEY_MISMATCH"),
    ("IMAP: the server turns us away", lambda w: imap(w, w.bye, encryption="none", ca=False), "GREETING", "CONNECTION_CLOSED"),
    ("IMAP: an SSH server", lambda w: imap(w, w.garbage, encryption="none", ca=False), "GREETING", "PROTOCOL_ERROR"),
    ("IMAP: an SMTP server", lambda w: imap(w, w.postfix.ports["submissions"]), "GREETING", "PROTOCOL_ERROR"),
    ("IMAP: sign-in switched off without TLS", lambda w: imap(w, w.no_login, encryption="none", ca=False), "SIGN_IN",
     "AUTHENTICATION_UNAVAILABLE"),
    ("IMAP: wrong password", lambda w: imap(w, password="wrong-password"), "SIGN_IN", "AUTHENTICATION_REJECTED"),
    ("IMAP: missing folder", lambda w: imap(w, extra=("--folder", "Suport")), "FOLDER", "FOLDER_MISSING"),
    ("IMAP: missing target folder", lambda w: imap(w, extra=("--after-import", "move", "--target-folder", "Done")), "FOLDER",
     "TARGET_FOLDER_MISSING"),
    ("SMTP: no such server", lambda w: smtp(w, host="no-such-host.invalid"), "NAME_LOOKUP", "HOST_UNKNOWN"),
    ("SMTP: address of an inner network", lambda w: smtp(w, host="10.77.0.1"), "CONNECT", "ADDRESS_NOT_ALLOWED"),
    ("SMTP: nobody listens on the port", lambda w: smtp(w, free_port()), "CONNECT", "CONNECTION_REFUSED"),
    ("SMTP: TLS on the STARTTLS port", lambda w: smtp(w, w.postfix.ports["submission"]), "TLS", "TLS_FAILED"),
    ("SMTP: STARTTLS on the TLS port", lambda w: smtp(w, encryption="starttls"), "GREETING", "TIMEOUT"),
    ("SMTP: STARTTLS is not offered", lambda w: smtp(w, w.smtp_plain, encryption="starttls"), "TLS", "STARTTLS_MISSING"),
    ("SMTP: expired certificate", lambda w: smtp(w, w.expired), "TLS", "CERTIFICATE_EXPIRED"),
    ("SMTP: unknown issuer", lambda w: smtp(w, w.postfix.ports["submission"], encryption="starttls", ca=False), "TLS",
     "CERTIFICATE_UNTRUSTED"),
    ("SMTP: another key than the pinned one", lambda w: smtp(w, ca=False, extra=PIN), "TLS", "CERTIFICATE_KEY_MISMATCH"),
    ("SMTP: the server turns us away", lambda w: smtp(w, w.smtp_554, encryption="none", ca=False), "GREETING", "CONNECTION_CLOSED"),
    ("SMTP: an IMAP server", lambda w: smtp(w, w.dovecot.ports["imaps"]), "GREETING", "PROTOCOL_ERROR"),
    ("SMTP: sign-in not offered without TLS",
     lambda w: smtp(w, w.postfix.ports["submission"], encryption="none", ca=False), "SIGN_IN", "AUTHENTICATION_UNAVAILABLE"),
    ("SMTP: wrong password", lambda w: smtp(w, password="wrong-password"), "SIGN_IN", "AUTHENTICATION_REJECTED"),
    ("SMTP: sender address not allowed", lambda w: smtp(w, account="support@localhost", to="sales@localhost"), "SEND",
     "SENDER_REFUSED"),
    ("SMTP: no such recipient", lambda w: smtp(w, to="nobody@localhost"), "SEND", "RECIPIENT_REFUSED"),
]
ROWS = {}


@pytest.mark.parametrize("title, tried, step, reason", MISTAKES, ids=[m[0] for m in MISTAKES])
def test_a_planted_mistake_is_named(world, title, tried, step, reason):
    code, last, ended = tried(world)
    ROWS[title] = last
    assert (code, last["outcome"], last["kind"], last["reason"]) == (7, "OUTCOME_FAILED", f"KIND_{step}", reason), last
    assert all(s["outcome"] == "OUTCOME_OK" for s in ended[:-1])
    texts = [last[part][language] for part in ("explanation", "remedy") for language in ("de", "en")]
    assert all(texts) and len(set(texts)) == 4
    assert ("certificate" in last) == reason.startswith("CERTIFICATE")
    assert "wrong-password" not in json.dumps(last)


def stable(text):
    """Without what differs from run to run."""
    text = re.sub(r"\d{4}-\d\d-\d\d", "(date)", text)
    return re.sub(r"(port|Port) \d{4,5}", r"\1 (port)", text)


def test_the_docs_hold_what_is_said():
    assert len(MISTAKES) >= 20
    if len(ROWS) != len(MISTAKES):
        pytest.skip("not every mistake was tried")
    table = "| mistake | step | reason | what is said | what to do |\n| --- | --- | --- | --- | --- |\n"
    for title, last in ROWS.items():
        said, remedy = (f"{stable(last[part]['en'])}<br>{stable(last[part]['de'])}" for part in ("explanation", "remedy"))
        table += f"| {title} | {last['kind'][5:].lower()} | {last['reason']} | {said} | {remedy} |\n"
    with open(DOCS) as f:
        text = f.read()
    begin = text.index("| mistake |")
    if os.environ.get("POSTSTELLE_WRITE_DOCS"):
        with open(DOCS, "w") as f:
            f.write(text[:begin] + table)
    else:
        assert text[begin:] == table, "run it with POSTSTELLE_WRITE_DOCS=1"


def kinds(ended):
    return [s["kind"][5:] for s in ended]


def test_right_settings_pass_every_step(world):
    code, _, ended = imap(world)
    assert (code, kinds(ended)) == (0, ["NAME_LOOKUP", "CONNECT", "TLS", "GREETING", "SIGN_IN", "FOLDER", "QUERY"]), ended
    code, _, ended = imap(world, world.dovecot.ports["imap"], encryption="starttls")
    assert (code, kinds(ended)) == (0, ["NAME_LOOKUP", "CONNECT", "GREETING", "TLS", "SIGN_IN", "FOLDER", "QUERY"]), ended
    assert "127.0.0.1" in ended[1]["detail"] and "TLSv1.3" in ended[3]["detail"]


@pytest.mark.parametrize("encryption", ["tls", "starttls"])
def test_a_test_message_arrives(world, encryption):
    port = world.postfix.ports["submissions" if encryption == "tls" else "submission"]
    code, last, ended = smtp(world, port, encryption=encryption, to="support@localhost")
    first = ["TLS", "GREETING"] if encryption == "tls" else ["GREETING", "TLS"]
    assert (code, kinds(ended)) == (0, ["NAME_LOOKUP", "CONNECT", *first, "SIGN_IN", "SEND"]), ended
    message_id = re.search(r"<(.+)>", last["detail"]).group(1).encode()
    new = os.path.join(world.dovecot.maildir("support@localhost"), "new")

    def arrived():
        return [m for m in (open(os.path.join(new, n), "rb").read() for n in os.listdir(new)) if message_id in m]
    wait_until(arrived, what="the test message")
    assert b"Auto-Submitted: auto-generated" in arrived()[0]


def test_the_table_for_people_and_its_languages(world):
    for language, word in (("en", "what to do:"), ("de", "Was tun:")):
        done = world.stack.cli("mailbox", "test", "--unsaved", "--address", INBOUND, "--host", "localhost", "--port",
                               str(world.dovecot.ports["imaps"]), "--lang", language, password="x", check=False)
        text = done.stdout.decode()
        assert done.returncode == 7 and "CERTIFICATE_UNTRUSTED" in text and word in text, text


def test_only_admins_get_the_servers_words_and_choose_settings(world):
    name = world.stack.create_mailbox(password="wrong-password", name="words", extra=("--disabled",))
    tokens = world.stack.identities.tokens
    with world.stack.channel(world.stack.config) as channel:
        stub = mailbox_service_pb2_grpc.MailboxServiceStub(channel)
        for role, hears in (("admin", True), ("operator", False)):
            request = mailbox_service_pb2.TestMailboxRequest(name=name)
            *_, last = stub.TestMailbox(request, metadata=[("authorization", f"Bearer {tokens[role]}")], timeout=120)
            assert last.step.reason == "AUTHENTICATION_REJECTED" and bool(last.step.server_words) == hears, last
        request = mailbox_service_pb2.TestMailboxRequest()
        request.mailbox.address = "x@localhost"
        with pytest.raises(grpc.RpcError) as refused:
            list(stub.TestMailbox(request, metadata=[("authorization", f"Bearer {tokens['operator']}")], timeout=60))
        assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
        assert "with settings that are not saved serves admin" in refused.value.details()


def test_the_stored_password_goes_nowhere_else(world):
    name = world.stack.create_mailbox(name="kept", extra=("--disabled",))
    done = world.stack.cli("mailbox", "test", name, check=False)
    assert done.returncode == 0, done.stdout
    moved = world.stack.cli("mailbox", "test", name, "--unsaved", "--host", "127.0.0.1", check=False)
    assert moved.returncode != 0 and b"password_authentication.password" in moved.stderr, moved.stderr
    same = world.stack.cli("mailbox", "test", name, "--unsaved", "--folder", "Suport", check=False)
    assert same.returncode == 7 and b"FOLDER_MISSING" in same.stdout, same.stdout + same.stderr


def test_without_a_sender_the_reason_says_so():
    with Stack().start() as stack:
        done = stack.cli("mailbox", "test", "--unsaved", "--outbound", "--address", INBOUND, "--host", "localhost", password="x",
                         check=False)
        assert done.returncode != 0 and b"SENDER_UNAVAILABLE" in done.stderr, done.stderr


def test_a_preview_counts_and_changes_nothing(world):
    account = OUTBOUND
    mail = b"From: a@example.org\r\nSubject: preview\r\n\r\nhi\r\n"
    world.dovecot.deliver(account, mail)
    world.dovecot.deliver(account, mail)
    world.dovecot.deliver(account, mail, seen=True)
    world.dovecot.deliver(account, mail, received=time.time() - 90 * 86400)
    name = world.stack.create_mailbox(account=account, name="preview", extra=("--disabled",))

    def files():
        home = world.dovecot.maildir(account)
        return sorted(os.path.basename(n) for part in ("new", "cur") for n in os.listdir(os.path.join(home, part)))

    def preview():
        folder, = json.loads(world.stack.cli("-o", "json", "mailbox", "preview", name).stdout)["folders"]
        return int(folder.get("messages", 0)), int(folder.get("would_import", folder.get("wouldImport", 0))), {
            p["reason"]: int(p["messages"]) for p in folder.get("passed_over", folder.get("passedOver", []))}
    before = files()
    assert preview() == (4, 2, {"AS_READ": 1, "TOO_OLD": 1})
    # Dovecot itself moves what it has listed from new/ to cur/; names without flags are told apart by their ending.
    assert [n.split(":2,")[0] for n in files()] == [n.split(":2,")[0] for n in before]
    assert sum(n.endswith(":2,S") for n in files()) == 1
    world.stack.cli("mailbox", "update", name, "--enabled")
    world.stack.idle(name)
    assert preview() == (4, 0, {"ALREADY_IMPORTED": 2, "AS_READ": 1, "TOO_OLD": 1})
