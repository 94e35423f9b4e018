"""Whatever a server does wrong gives its mailbox a state with a reason that a person understands; the others go on."""
import pytest

from imap_server import ImpatientServer, ScriptedServer
from samples import mail
from servers import Process, free_port, port_answers, wait_until
from stack import Feed, Stack

SCRIPTED = {
    "silent greeting": ("greeting", None, "TIMEOUT", "greeting"),
    "silent login": ("login", None, "TIMEOUT", "sign-in"),
    "silent folder": ("examine", None, "TIMEOUT", "folder"),
    "silent list": ("list", None, "TIMEOUT", "list of messages"),
    "silent body": ("body", None, "TIMEOUT", "messages"),
    "hangs up": ("examine", "close", "CONNECTION_CLOSED", "closed"),
    "not imap": ("greeting", b"220 smtp.example.org ESMTP\r\n", "PROTOCOL_ERROR", "no IMAP"),
    "bye": ("greeting", b"* BYE overloaded\r\n", "CONNECTION_CLOSED", "overloaded"),
    "rejects": ("login", b"h1 NO [AUTHENTICATIONFAILED] no\r\n", "AUTHENTICATION_REJECTED", "password"),
    "literal of 4 GiB": ("body", b"* 1 FETCH (UID 5 BODY[] {4294967295}\r\n", "PROTOCOL_ERROR", "4294967295"),
    "endless line": ("list", b"* " + b"x" * 600000, "PROTOCOL_ERROR", "line"),
    "malformed fetch": ("list", b"* 1 FETCH (UID five)\r\n", "PROTOCOL_ERROR", "FETCH"),
    "nested": ("list", b"* 1 FETCH (X " + b"(" * 5000 + b"\r\n", "PROTOCOL_ERROR", "FETCH"),
    "ends in a literal": ("body", b"* 1 FETCH (UID 5 BODY[] {100}\r\nhalf", "TIMEOUT", "messages"),
}


@pytest.fixture(scope="module")
def stack():
    with Stack(fetcher_arguments=["--command-timeout", "4s"]).start() as s:
        s.healthy = s.create_mailbox("sales@localhost", "Healthy")
        yield s


def failing(stack, box, reason, words):
    status = wait_until(lambda: (lambda s: s if s.state == 3 else None)(stack.status(box)), 60, f"{box} to fail")
    assert status.reason == reason, status
    assert words in status.reason_text, status.reason_text
    assert len(status.reason_text) < 600
    stack.cli("mailbox", "delete", box)


@pytest.mark.parametrize("case", SCRIPTED)
def test_scripted(stack, case):
    step, answer, reason, words = SCRIPTED[case]
    server = ScriptedServer(step, answer)
    box = stack.create_mailbox(name=case, encryption="none", port=server.port, ca=False)
    failing(stack, box, reason, words)
    server.close()


def test_starttls_is_never_given_up(stack):
    server = ScriptedServer("never", None)
    box = stack.create_mailbox(name="no starttls", encryption="starttls", port=server.port)
    failing(stack, box, "STARTTLS_MISSING", "STARTTLS")
    server.close()


def test_names_ports_and_passwords(stack):
    failing(stack, stack.create_mailbox(name="unknown host", host="no-such-host.invalid"), "HOST_UNKNOWN", "no-such-host.invalid")
    failing(stack, stack.create_mailbox(name="refused", port=free_port()), "CONNECTION_REFUSED", "port")
    failing(stack, stack.create_mailbox(name="wrong password", password="wrong"), "AUTHENTICATION_REJECTED", "password")
    failing(stack, stack.create_mailbox(name="missing folder", extra=["--folder", "Nö"]), "FOLDER_MISSING", "Nö")


def test_certificates(stack):
    failing(stack, stack.create_mailbox(name="unknown issuer", ca=False), "CERTIFICATE_UNTRUSTED", "not trusted")
    failing(stack, stack.create_mailbox(name="other name", host="127.0.0.1"), "CERTIFICATE_NAME_MISMATCH", "127.0.0.1")


def test_expired_certificate(stack):
    certificate, key = stack.authority.issue("expired", days=-1)
    port = free_port()
    server = Process("s_server", ["openssl", "s_server", "-quiet", "-accept", f"127.0.0.1:{port}", "-cert", certificate, "-key", key],
                     stack.folder)
    wait_until(lambda: port_answers(port), what="openssl s_server")
    failing(stack, stack.create_mailbox(name="expired", port=port), "CERTIFICATE_EXPIRED", "expired")
    server.kill()


def test_a_server_that_wants_to_greet_first_is_let(stack):
    """The sign-in is written before the greeting once a server is known; one that hangs up on that costs no failed poll."""
    server = ImpatientServer(*stack.authority.issue("impatient"))
    failed = stack.metric('poststelle_fetcher_polls_total{outcome="failed"}')
    box = stack.create_mailbox(name="impatient", port=server.port)
    wait_until(lambda: server.hung_up == 3, 60, "the third try")
    polls = server.let_in
    wait_until(lambda: server.let_in >= polls + 3, 60, "polls step by step")
    assert server.hung_up == 3  # it was tried no more
    assert stack.status(box).state == 2
    assert stack.metric('poststelle_fetcher_polls_total{outcome="failed"}') == failed
    stack.cli("mailbox", "delete", box)
    server.close()


def test_the_healthy_one_went_on(stack):
    feed = Feed(stack.fetcher.address)
    stack.dovecot.deliver("sales@localhost", mail("still here", "x", message_id="h@x"))
    wait_until(lambda: [e.message.subject for e in feed.events] == ["still here"], 60, "the healthy mailbox's mail")
    assert stack.status(stack.healthy).state == 2
