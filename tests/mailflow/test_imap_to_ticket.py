"""From a real Dovecot to a subscriber: the meanings of SPEC section 5."""
import os
import time

import pytest

import samples
from samples import mail
from servers import wait_until
from stack import Feed, Stack

SUPPORT = "support@localhost"


@pytest.fixture(params=["sqlite", "postgres"])
def stack(request):
    with Stack(database=request.param, fetcher_arguments=["--max-message-size", "200000"]).start() as s:
        yield s


def subjects(feed):
    return sorted(e.message.subject for e in feed.events)


def test_each_mail_becomes_one_ticket_with_its_bytes(stack):
    box = stack.create_mailbox()
    feed = Feed(stack.fetcher.address)
    put = [raw for account, raw in samples.DEMO if account == SUPPORT]
    for raw in put:
        stack.dovecot.deliver(SUPPORT, raw)
    stack.idle(box)
    wait_until(lambda: len(feed.events) >= len(put), what="every mail in the feed")
    got = sorted(stack.raw(e.message.name) for e in feed.events)
    assert got == sorted(raw.replace(b"\0", b"\x80") for raw in put)
    assert len({e.name for e in feed.events}) == len(put)


def test_the_same_mail_twice_is_one_ticket_and_one_duplicate(stack):
    box = stack.create_mailbox()
    feed = Feed(stack.fetcher.address)
    raw = mail("Once", "x", message_id="once@x")
    stack.dovecot.deliver(SUPPORT, b"Received: by one\r\n" + raw)
    stack.idle(box)
    stack.dovecot.deliver(SUPPORT, b"Received: by two\r\n" + raw)
    stack.idle(box)
    assert subjects(feed) == ["Once"]
    outcomes = stack.explain(box, "<once@x>")
    assert sorted(o.kind for o in outcomes) == [2, 3]
    duplicate = next(o for o in outcomes if o.kind == 3)
    assert duplicate.duplicate_of == feed.events[0].message.name
    assert stack.raw(duplicate.message).startswith(b"Received: by two")


def test_read_mail_is_imported_when_it_becomes_unread(stack):
    box = stack.create_mailbox()
    feed = Feed(stack.fetcher.address)
    path = stack.dovecot.deliver(SUPPORT, mail("Read", "x", message_id="read@x"), seen=True)
    stack.idle(box)
    assert feed.events == []
    assert [o.kind for o in stack.explain(box, "read@x")] == [5]
    os.rename(path, path.replace(":2,S", ":2,"))
    wait_until(lambda: subjects(feed) == ["Read"], 60, "the mail to be imported")
    stack.idle(box)
    assert subjects(feed) == ["Read"]


def test_a_rebuilt_folder_publishes_and_downloads_nothing_again(stack):
    box = stack.create_mailbox()
    feed = Feed(stack.fetcher.address)
    for i in range(20):
        stack.dovecot.deliver(SUPPORT, mail(f"mail {i}", "x" * i, message_id=f"{i}@x"))
    stack.idle(box)
    wait_until(lambda: len(feed.events) == 20, what="20 events")
    before = stack.metric("poststelle_fetcher_bodies_fetched_total")
    stack.dovecot.rebuild(SUPPORT)
    wait_until(lambda: "UIDVALIDITY" in stack.status(box).notice, 60, "the rebuild to be noticed")
    stack.idle(box)
    assert len(feed.events) == 20
    assert stack.metric("poststelle_fetcher_bodies_fetched_total") == before == 20
    stack.dovecot.deliver(SUPPORT, mail("new", "y", message_id="new@x"))
    wait_until(lambda: len(feed.events) == 21, 60, "new mail after the rebuild")


def test_age_limit_guards_the_first_poll_only(stack):
    day = 86400
    stack.dovecot.deliver(SUPPORT, mail("old", "x", message_id="old@x"), received=time.time() - 40 * day)
    stack.dovecot.deliver(SUPPORT, mail("young", "x", message_id="young@x"), received=time.time() - 20 * day)
    box = stack.create_mailbox()
    feed = Feed(stack.fetcher.address)
    stack.idle(box)
    assert subjects(feed) == ["young"]
    assert feed.events[0].message.historical
    outcome, = stack.explain(box, "old@x")
    assert outcome.kind == 4 and "age limit" in outcome.reason


def test_an_outage_longer_than_the_age_limit_loses_nothing(stack):
    box = stack.create_mailbox(extra=["--max-age-days", "1"])
    feed = Feed(stack.fetcher.address)
    stack.idle(box)
    stack.fetcher.stop()
    feed.close()
    # As if the last complete listing had been ten days ago, and mail had come nine days ago.
    stack.alter_ledger(f"UPDATE folder_cursor SET reference_time = {int((time.time() - 10 * 86400) * 1000)}")
    stack.dovecot.deliver(SUPPORT, mail("during the outage", "x", message_id="out@x"), received=time.time() - 9 * 86400)
    stack.start()
    feed = Feed(stack.fetcher.address, "second")
    wait_until(lambda: subjects(feed) == ["during the outage"], 60, "the mail of the outage")
    assert not feed.events[0].message.historical


def test_replies_join_on_proof_only(stack):
    box = stack.create_mailbox()
    feed = Feed(stack.fetcher.address)
    stack.dovecot.deliver(SUPPORT, mail("Question", "x", "a@example.org", "q@x"))
    stack.idle(box)
    stack.dovecot.deliver(SUPPORT, mail("Re: Question", "x", "A@example.org", "r@x", "In-Reply-To: <q@x>\r\n"))
    stack.dovecot.deliver(SUPPORT, mail("Re: Question", "x", "mallory@example.com", "m@x", "References: <q@x>\r\n"))
    stack.idle(box)
    wait_until(lambda: len(feed.events) == 3, what="3 events")
    by_id = {e.message.message_id: e for e in feed.events}
    assert by_id["r@x"].type == 2 and by_id["r@x"].ticket == by_id["q@x"].ticket
    assert by_id["m@x"].type == 1 and by_id["m@x"].ticket != by_id["q@x"].ticket


def test_hostile_and_large_mail_never_blocks_the_next(stack):
    box = stack.create_mailbox()
    feed = Feed(stack.fetcher.address)
    deep = b"From: d@example.org\r\nSubject: deep\r\n" + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" * 3000
    stack.dovecot.deliver(SUPPORT, mail("large", "x" * 300000, message_id="large@x"))
    stack.dovecot.deliver(SUPPORT, deep)
    stack.dovecot.deliver(SUPPORT, samples.DEMO[9][1])
    stack.dovecot.deliver(SUPPORT, mail("after", "x", message_id="after@x"))
    wait_until(lambda: len(feed.events) == 4, 90, "all four")
    by = {e.message.subject: e.message for e in feed.events}
    assert by["large"].too_large and "stays on the mail server" in by["large"].note and by["large"].message_id == "large@x"
    assert by["deep"].undecodable and by["Hostile"].undecodable
    assert stack.raw(by["deep"].name) == deep
    assert not by["after"].undecodable
    listed = stack.cli("-o", "json", "quarantine", "list").stdout.decode()
    assert by["deep"].name in listed and by["Hostile"].name in listed
    assert stack.status(box).state == 2
