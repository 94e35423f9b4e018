"""Several folders of one mailbox, and what is done on the server after an import (SPEC sections 5.1, 5.8 and 6), against
a real Dovecot."""
import time

import grpc
import pytest

from samples import mail
from servers import wait_until
from stack import Feed, Stack

SUPPORT = "support@localhost"

@pytest.fixture(params=["sqlite", "postgres"])
def stack(request):
    with Stack(database=request.param, fetcher_arguments=["--max-message-size", "200000"]).start() as s:
        yield s


def watch(stack, box, *folders):
    def change(mailbox):
        del mailbox.import_options.folders[:]
        mailbox.import_options.folders.extend(folders)
    stack.change_mailbox(box, change)


def lying_in(stack, folder="INBOX"):
    """The subjects in a folder of the server."""
    return sorted(subject for subject, _ in stack.listing(SUPPORT, folder))


def subjects(feed):
    return sorted(e.message.subject for e in feed.events)


def put(stack, name, folder=None, **kwargs):
    return stack.dovecot.deliver(SUPPORT, mail(name, f"text of {name}", message_id=f"{name.replace(' ', '-')}@x"), folder=folder, **kwargs)


def test_every_folder_is_polled_and_each_listing_is_its_own(stack):
    put(stack, "in one", folder="One")
    box = stack.create_mailbox()
    feed = Feed(stack.fetcher.address)
    stack.idle(box)
    put(stack, "in inbox")
    stack.idle(box)
    assert subjects(feed) == ["in inbox"]
    # A folder that is added counts as listed for the first time: its mail is historical, and its age counts from now.
    put(stack, "old", folder="One", received=time.time() - 40 * 86400)
    watch(stack, box, "inbox", "One", "Aufträge")
    wait_until(lambda: stack.status(box).reason == "FOLDER_MISSING", 60, "the missing folder to be told")
    assert "Auftr" in stack.status(box).reason_text
    wait_until(lambda: subjects(feed) == ["in inbox", "in one"], 60, "the other folders' mail all the same")
    by = {e.message.subject: e.message for e in feed.events}
    assert by["in one"].historical and not by["in inbox"].historical
    assert by["in one"].server_identity.folder == "One"
    assert [o.kind for o in stack.explain(box, "old@x")] == [4]
    put(stack, "more")
    wait_until(lambda: "more" in subjects(feed), 60, "new mail while a folder is missing")
    with stack.sign_in(SUPPORT) as client:
        client.create('"Auftr&AOQ-ge"')
        client.append('"Auftr&AOQ-ge"', None, None, mail("order", "x", message_id="order@x"))
    wait_until(lambda: "order" in subjects(feed), 60, "mail of the folder that was missing")
    stack.idle(box)
    put(stack, "in one again", folder="One")
    wait_until(lambda: "in one again" in subjects(feed), 60, "new mail of a second folder")
    assert not {e.message.subject: e.message for e in feed.events}["in one again"].historical
    stack.idle(box)
    assert len(feed.events) == len(set(subjects(feed))) == 5


def test_moved_after_the_import_and_only_what_was_published(stack):
    with stack.sign_in(SUPPORT) as client:
        client.create("Done")
    put(stack, "too old", received=time.time() - 40 * 86400)
    put(stack, "already read", seen=True)
    box = stack.create_mailbox(extra=["--disabled"])
    stack.after_import(box, "move", "Done")
    stack.change_mailbox(box, lambda m: setattr(m, "enabled", True))
    feed = Feed(stack.fetcher.address)
    put(stack, "first")
    put(stack, "first")  # delivered twice: a duplicate is moved as well
    stack.dovecot.deliver(SUPPORT, mail("large", "x" * 300000, message_id="large@x"))
    wait_until(lambda: lying_in(stack, "Done") == ["first", "first"], 60, "the published mail to be moved")
    stack.idle(box)
    wait_until(lambda: lying_in(stack) == ["already read", "large", "too old"], 60, "the rest to stay")
    assert subjects(feed) == ["first", "large"]
    # What a person moves back is recognised by its bytes: a duplicate, no second ticket.
    with stack.sign_in(SUPPORT) as client:
        client.select("Done")
        client.uid("MOVE", "1", "INBOX")
    wait_until(lambda: lying_in(stack) == ["already read", "large", "too old"], 60, "it to be moved once more")
    stack.idle(box)
    assert subjects(feed) == ["first", "large"]


def test_a_missing_target_folder_is_told_and_nothing_is_lost(stack):
    box = stack.create_mailbox()
    stack.after_import(box, "move", "Erledigt")
    feed = Feed(stack.fetcher.address)
    put(stack, "one")
    wait_until(lambda: "Erledigt" in stack.status(box).notice, 60, "a notice")
    assert stack.status(box).notice.startswith("After import: ") and stack.status(box).state == 2
    put(stack, "two")
    wait_until(lambda: subjects(feed) == ["one", "two"], 60, "polling to go on")
    with stack.sign_in(SUPPORT) as client:
        client.create("Erledigt")
    wait_until(lambda: lying_in(stack, "Erledigt") == ["one", "two"], 90, "both to be moved")
    wait_until(lambda: stack.status(box).notice == "", 60, "the notice to end")
    assert lying_in(stack) == []
    # A target that is itself watched would move mail in a circle.
    with pytest.raises(grpc.RpcError) as refused:
        watch(stack, box, "INBOX", "Erledigt")
    assert "target_folder" in refused.value.details()


def test_deleted_by_uid_and_what_others_marked_stays(stack):
    box = stack.create_mailbox()
    stack.after_import(box, "delete")
    feed = Feed(stack.fetcher.address)
    # Marked by a person, who has not removed it yet.
    with stack.sign_in(SUPPORT) as client:
        client.append("INBOX", r"(\Deleted)", None, mail("marked", "x", message_id="marked@x"))
    stack.idle(box)
    for i in range(30):
        put(stack, f"mail {i}")
    wait_until(lambda: len(feed.events) == 30, 60, "30 events")
    wait_until(lambda: lying_in(stack) == ["marked"], 60, "the published ones to be deleted")


def test_marked_as_seen(stack):
    box = stack.create_mailbox()
    stack.after_import(box, "mark_seen")
    feed = Feed(stack.fetcher.address)
    put(stack, "one")
    put(stack, "two")
    wait_until(lambda: len(feed.events) == 2, 60, "two events")
    wait_until(lambda: all("\\Seen" in flags for _, flags in stack.listing(SUPPORT)), 60, "both to be marked")
    stack.idle(box)
    assert subjects(feed) == ["one", "two"]
