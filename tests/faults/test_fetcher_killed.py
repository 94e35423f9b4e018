"""The fetcher is killed with kill -9 while mail comes in: every mail exactly once in the feed.

Given 2,000 mails, when it dies at each named failpoint and at random moments, then a fresh subscriber that reads from the
beginning sees each of them once. Two deliberate breaks show that this check can fail.
"""
import collections
import os
import random
import re
import shutil
import sqlite3
import time

import pytest

from samples import mail
from servers import wait_until
from stack import ROOT, Feed, Stack

ACCOUNT = "support@localhost"
KILLS = int(os.environ.get("POSTSTELLE_KILLS", "20"))


def failpoints():
    with open(os.path.join(ROOT, "docs", "life-of-a-mail.md")) as f:
        text = f.read()
    return re.findall(r"^\| `([\w.]+)` \|", text[text.index("| failpoint |"):], re.M)


def deliver(stack, first, count):
    for i in range(first, first + count):
        stack.dovecot.deliver(ACCOUNT, mail(f"mail {i}", f"number {i}", message_id=f"{i}@x"))


def pending(stack):
    try:
        with sqlite3.connect(f"file:{stack.folder}/fetcher.db?mode=ro", uri=True, timeout=20) as ledger:
            return ledger.execute("SELECT COUNT(*) FROM message WHERE state = 'pending'").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def seen_by_a_fresh_subscriber(stack, expected, name, patience=120):
    feed = Feed(stack.fetcher.address, name)
    try:
        wait_until(lambda: len(feed.events) >= expected, patience, f"{expected} events")
    except TimeoutError:
        pass  # what is missing is told by the counts
    time.sleep(1)  # what is doubled comes now
    feed.close()
    return collections.Counter(e.message.subject for e in feed.events)


def faults(counts, expected):
    lost = [i for i in range(expected) if counts[f"mail {i}"] == 0]
    doubled = [s for s, n in counts.items() if n > 1]
    return lost, doubled


def new_stack():
    stack = Stack(fetcher_program="poststelle-fetcher-failpoints", lease="500ms")
    stack.start()
    return stack


def test_every_mail_once_whenever_it_dies():
    seed = int(os.environ.get("POSTSTELLE_SEED", time.time_ns() % 1_000_000))
    print(f"seed {seed}")
    chance = random.Random(seed)
    with new_stack() as stack:
        box = stack.create_mailbox(interval="100ms")
        stack.after_import(box, "mark_seen")
        stack.idle(box)
        delivered = 0
        for name in failpoints():
            stack.fetcher.stop()
            deliver(stack, delivered, 60)
            delivered += 60
            stack.fetcher.start(env={"POSTSTELLE_FAILPOINT": name}, wait=False)
            wait_until(lambda: not stack.fetcher.process.running(), 60, f"it to die at {name}")
            assert stack.fetcher.process.child.returncode == -9, stack.fetcher.process.log()[-2000:]
            stack.start()
        rest = 2000 - delivered
        in_between = 0
        for i in range(KILLS):
            count = rest // KILLS + (rest % KILLS if i == 0 else 0)
            deliver(stack, delivered, count)
            delivered += count
            if i % 3 != 2:
                # Between a listing's commit and its publication.
                wait_until(lambda: pending(stack) > 0, 60, "pending mail")
            time.sleep(chance.random() * 0.03)
            in_between += pending(stack) > 0
            stack.fetcher.kill()
            in_between += 0
            stack.start()
        print(f"{in_between} of {KILLS} kills between a listing's commit and its publication")
        stack.idle(box)
        counts = seen_by_a_fresh_subscriber(stack, delivered, "checker")
        assert faults(counts, delivered) == ([], [])
        assert delivered == 2000
        # What was due on the server was done as well, whenever it died.
        wait_until(lambda: all("\\Seen" in flags for _, flags in stack.listing(ACCOUNT)), 60, "every mail to be marked")
        assert in_between >= KILLS // 2


def subjects_of(stack, state):
    with sqlite3.connect(f"file:{stack.folder}/fetcher.db?mode=ro", uri=True, timeout=20) as ledger:
        ids = ledger.execute("SELECT internet_message_id FROM message WHERE state = ?", (state,)).fetchall()
    return {f"mail {i.split('@')[0]}" for (i,) in ids}


@pytest.mark.parametrize("failpoint", ["publication.in_transaction", "publication.after_commit", "action.attempt_counted",
                                       "action.done_on_server"])
def test_moved_is_what_was_published_whenever_it_dies(failpoint):
    with new_stack() as stack:
        with stack.sign_in(ACCOUNT) as client:
            client.create("Done")
        box = stack.create_mailbox(interval="100ms")
        stack.after_import(box, "move", "Done")
        stack.idle(box)
        stack.fetcher.stop()
        deliver(stack, 0, 100)  # two windows
        stack.dovecot.deliver(ACCOUNT, mail("read before", "x", message_id="read@x"), seen=True)
        stack.fetcher.start(env={"POSTSTELLE_FAILPOINT": failpoint}, wait=False)
        wait_until(lambda: not stack.fetcher.process.running(), 60, f"it to die at {failpoint}")
        moved = {subject for subject, _ in stack.listing(ACCOUNT, "Done")}
        assert moved <= subjects_of(stack, "published")
        assert bool(moved) == (failpoint == "action.done_on_server")
        stack.start()
        stack.idle(box)
        everything = sorted(f"mail {i}" for i in range(100))
        wait_until(lambda: sorted(s for s, _ in stack.listing(ACCOUNT, "Done")) == everything, 60, "each to be moved once")
        assert [s for s, _ in stack.listing(ACCOUNT)] == ["read before"]
        assert faults(seen_by_a_fresh_subscriber(stack, 100, "checker"), 100) == ([], [])


def states(stack):
    with sqlite3.connect(f"file:{stack.folder}/fetcher.db?mode=ro", uri=True, timeout=20) as ledger:
        return dict(ledger.execute("SELECT folder || ' ' || state, COUNT(*) FROM message GROUP BY folder, state"))


def test_listed_mail_of_a_folder_that_the_mailbox_left_is_still_fetched():
    with new_stack() as stack:
        box = stack.create_mailbox(interval="100ms")
        stack.idle(box)
        stack.fetcher.stop()
        deliver(stack, 0, 3)
        stack.dovecot.deliver(ACCOUNT, mail("read", "read before", message_id="read@x"), seen=True)
        stack.dovecot.deliver(ACCOUNT, mail("mail 3", "elsewhere", message_id="3@x"), folder="Other")
        stack.fetcher.start(env={"POSTSTELLE_FAILPOINT": "listing.after_commit"}, wait=False)
        wait_until(lambda: not stack.fetcher.process.running(), 60, "it to die after the listing")
        assert states(stack) == {"INBOX pending": 3, "INBOX as_read": 1}
        stack.cli("mailbox", "update", box.split("/")[1], "--folder", "Other")
        stack.start()
        stack.idle(box)
        assert faults(seen_by_a_fresh_subscriber(stack, 4, "checker"), 4) == ([], [])
        assert states(stack) == {"INBOX published": 3, "INBOX passed_over": 1, "Other published": 1}

        # What lies in a folder that is gone can't be fetched any more; it does not count as pending for ever.
        stack.fetcher.stop()
        stack.dovecot.deliver(ACCOUNT, mail("mail 4", "vanishing", message_id="4@x"), folder="Other")
        stack.fetcher.start(env={"POSTSTELLE_FAILPOINT": "listing.after_commit"}, wait=False)
        wait_until(lambda: not stack.fetcher.process.running(), 60, "it to die after the listing")
        shutil.rmtree(os.path.join(stack.dovecot.maildir(ACCOUNT), ".Other"))
        stack.cli("mailbox", "update", box.split("/")[1], "--folder", "INBOX")
        stack.start()
        stack.idle(box)
        assert stack.status(box).pending == 0
        assert states(stack)["Other gone"] == 1


@pytest.mark.parametrize("broken,failpoint", [("watermark_without_pending", "listing.in_transaction"),
                                              ("pending_closed_before_publication", "publication.before_commit")])
def test_a_broken_invariant_is_caught(broken, failpoint):
    with new_stack() as stack:
        box = stack.create_mailbox(interval="100ms")
        stack.idle(box)
        stack.fetcher.stop()
        deliver(stack, 0, 30)
        stack.fetcher.start(env={"POSTSTELLE_FAILPOINT": failpoint, "POSTSTELLE_BREAK": broken}, wait=False)
        wait_until(lambda: not stack.fetcher.process.running(), 60, f"it to die at {failpoint}")
        stack.start()
        stack.idle(box)
        lost, _ = faults(seen_by_a_fresh_subscriber(stack, 30, "checker", patience=5), 30)
        assert lost
