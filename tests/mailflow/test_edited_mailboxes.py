"""What follows from editing a mailbox (SPEC section 5.2 to 5.5, 5.11), against a real Dovecot."""
import os
import sqlite3
import time

import pytest

from samples import mail
from servers import wait_until
from stack import Feed, Stack
from test_folders_and_actions import put, subjects

SUPPORT = "support@localhost"
DAY = 86400


@pytest.fixture(params=["sqlite", "postgres"])
def stack(request):
    with Stack(database=request.param).start() as s:
        yield s


def cli(stack, box, *arguments):
    stack.cli("mailbox", "update", box.split("/")[1], *arguments)


def kinds(stack, box, message_id):
    return [o.kind for o in stack.explain(box, message_id)]


PUBLISHED, PASSED_OVER, AS_READ, RECOGNISED = 2, 4, 5, 8


def test_raising_the_age_limit_reevaluates_once(stack):
    for days in (10, 20, 60):
        put(stack, f"{days} days", received=time.time() - days * DAY)
    put(stack, "20 days, read", received=time.time() - 20 * DAY, seen=True)
    put(stack, "20 days, removed", received=time.time() - 20 * DAY)
    box = stack.create_mailbox(extra=["--max-age-days", "15"])
    feed = Feed(stack.fetcher.address)
    stack.idle(box)
    assert subjects(feed) == ["10 days"]
    home = stack.dovecot.maildir(SUPPORT)
    gone = [os.path.join(base, f) for base, _, files in os.walk(home) for f in files
            if b"20 days, removed" in open(os.path.join(base, f), "rb").read(4000)]
    for path in gone:
        os.remove(path)
    cli(stack, box, "--max-age-days", "30")
    wait_until(lambda: subjects(feed) == ["10 days", "20 days"], 60, "what became young enough")
    assert all(e.message.historical for e in feed.events)
    stack.idle(box)
    assert kinds(stack, box, "20-days,-read@x") == [AS_READ]
    assert kinds(stack, box, "60-days@x") == [PASSED_OVER]
    # Lowered, nothing that is decided changes; and it counts from there: raised again, nothing comes twice.
    cli(stack, box, "--max-age-days", "5")
    stack.idle(box)
    cli(stack, box, "--max-age-days", "30")
    stack.idle(box)
    put(stack, "new")
    wait_until(lambda: "new" in subjects(feed), 60, "new mail")
    assert subjects(feed) == ["10 days", "20 days", "new"]
    cli(stack, box, "--unlimited-age")
    wait_until(lambda: "60 days" in subjects(feed), 60, "everything")
    stack.idle(box)
    assert len(feed.events) == 4


def test_fetching_read_mail_too_reevaluates_once(stack):
    put(stack, "unread")
    put(stack, "read", seen=True)
    put(stack, "read and old", seen=True, received=time.time() - 40 * DAY)
    box = stack.create_mailbox()
    feed = Feed(stack.fetcher.address)
    stack.idle(box)
    put(stack, "read at once", seen=True)
    stack.idle(box)
    assert subjects(feed) == ["unread"]
    cli(stack, box, "--also-read")
    wait_until(lambda: subjects(feed) == ["read", "read at once", "unread"], 60, "read mail")
    assert all(e.message.historical for e in feed.events)
    cli(stack, box, "--unread-only")
    stack.idle(box)
    put(stack, "read later", seen=True)
    stack.idle(box)
    assert subjects(feed) == ["read", "read at once", "unread"]


def test_another_connection_recognises_without_downloading(stack):
    box = stack.create_mailbox()
    feed = Feed(stack.fetcher.address)
    for i in range(10):
        put(stack, f"mail {i}")
    stack.idle(box)
    wait_until(lambda: len(feed.events) == 10, 60, "ten events")
    before = stack.metric("poststelle_fetcher_bodies_fetched_total")
    # Another address makes another connection, and every message of the server a new identity.
    stack.change_mailbox(box, lambda m: (setattr(m, "address", "service@localhost"),
                                        setattr(m.password_authentication, "login_name", SUPPORT)))
    put(stack, "after the change")
    wait_until(lambda: len(feed.events) == 11, 60, "the new mail")
    stack.idle(box)
    assert len(feed.events) == 11
    assert stack.metric("poststelle_fetcher_bodies_fetched_total") == before + 1
    assert sorted(kinds(stack, box, "mail-3@x")) == [PUBLISHED, RECOGNISED]


def test_disabled_and_enabled_again(stack):
    box = stack.create_mailbox(extra=["--max-age-days", "30"])
    feed = Feed(stack.fetcher.address)
    stack.idle(box)
    put(stack, "before")
    stack.idle(box)
    cli(stack, box, "--disabled")
    wait_until(lambda: stack.status(box).state == 4, 60, "it to be disabled")
    put(stack, "meanwhile")
    put(stack, "meanwhile and read", seen=True)
    put(stack, "meanwhile and old", received=time.time() - 31 * DAY)
    cli(stack, box, "--enabled")
    wait_until(lambda: subjects(feed) == ["before", "meanwhile"], 60, "what came meanwhile")
    stack.idle(box)
    assert subjects(feed) == ["before", "meanwhile"]
    assert {e.message.subject: e.message.historical for e in feed.events} == {"before": False, "meanwhile": True}
    assert kinds(stack, box, "meanwhile-and-read@x") == [AS_READ]
    assert kinds(stack, box, "meanwhile-and-old@x") == [PASSED_OVER]


def ledger(stack, sql):
    if stack.postgres:
        return int(stack.postgres.query("fetcher", sql)[0])
    with sqlite3.connect(f"file:{stack.folder}/fetcher.db?mode=ro", uri=True, timeout=20) as db:
        return db.execute(sql).fetchone()[0]


def test_deleting_while_a_poll_is_in_flight(stack):
    count = 1500
    for i in range(count):
        stack.dovecot.deliver(SUPPORT, mail(f"mail {i}", "x" * 2000, message_id=f"{i}@x"))
    put(stack, "read", seen=True)
    box = stack.create_mailbox(name="Support", extra=["--id", "support"])
    feed = Feed(stack.fetcher.address)
    wait_until(lambda: len(feed.events) >= 10, 60, "the drain to be under way")
    stack.cli("mailbox", "delete", "support")
    open_rows = ("SELECT COUNT(*) FROM message WHERE state IN ('pending', 'as_read') OR mailbox_key IN "
                 "(SELECT mailbox_key FROM folder_cursor)")
    wait_until(lambda: ledger(stack, open_rows) == 0, 60, "the ledger to forget it")
    published = ledger(stack, "SELECT COUNT(*) FROM message WHERE state = 'published'")
    assert 10 <= published < count
    wait_until(lambda: len(feed.events) == published, 60, "what was published to be delivered")
    time.sleep(1.5)
    assert ledger(stack, "SELECT COUNT(*) FROM event") == published == len(feed.events)
    # What was published stays.
    assert b"x" * 2000 in stack.raw(feed.events[0].message.name)
    tickets = stack.cli("-o", "json", "ticket", "get", feed.events[0].ticket.split("/")[1], check=False)
    assert tickets.returncode == 0, tickets.stderr
    # Made again under the same id, it is another mailbox: everything comes, as a first listing.
    again = stack.create_mailbox(name="Support", extra=["--id", "support"])
    assert again == box
    wait_until(lambda: len(feed.events) == published + count, 120, "everything once more")
    stack.idle(again)
    assert len(feed.events) == published + count
    assert all(e.message.historical for e in feed.events)


def test_deleted_while_no_fetcher_runs(stack):
    box = stack.create_mailbox()
    other = stack.create_mailbox("sales@localhost")
    put(stack, "one")
    put(stack, "read", seen=True)
    stack.idle(box)
    stack.idle(other)
    stack.fetcher.stop()
    stack.cli("mailbox", "delete", box.split("/")[1])
    stack.start()
    wait_until(lambda: ledger(stack, "SELECT COUNT(*) FROM message WHERE state = 'as_read'") == 0, 60, "it to be forgotten")
    assert ledger(stack, "SELECT COUNT(*) FROM message WHERE state = 'published'") == 1
    assert ledger(stack, "SELECT COUNT(*) FROM folder_cursor") == 1
    stack.idle(other)
