"""Whatever a server tells of its messages and sends for them: each ends in exactly one outcome, and no other waits for it."""
import sqlite3

import pytest

from imap_server import FolderServer, Refusal, literal, message
from servers import wait_until
from stack import Stack

LIMIT = 2 << 20


@pytest.fixture(scope="module")
def stack():
    with Stack(mail=False, fetcher_arguments=["--command-timeout", "4s", "--max-message-size", str(LIMIT)]).start() as s:
        yield s


@pytest.fixture
def watch(stack):
    """Makes a mailbox on a server, and takes both away in the end."""
    made = []

    def make(server):
        made.append((server, stack.create_mailbox(name="hostile", encryption="none", port=server.port, ca=False)))
        return made[-1][1]
    yield make
    for server, box in made:
        stack.cli("mailbox", "delete", box)
        server.close()


def rows(stack, box):
    """UID: (state, reason) of the mailbox's messages."""
    with sqlite3.connect(f"file:{stack.folder}/fetcher.db?mode=ro", uri=True, timeout=20) as ledger:
        found = ledger.execute("SELECT uid, state, reason FROM message WHERE mailbox_id = ?", [box.split("/")[1]])
        return {uid: (state, reason) for uid, state, reason in found}


def outcomes(stack, box, count):
    """Waits until the mailbox's messages are all decided and fetched."""
    def settled():
        found = rows(stack, box)
        return found if len(found) == count and all(state != "pending" for state, _ in found.values()) else None
    return wait_until(settled, 60, f"{count} outcomes; now {rows(stack, box)}")


def failed(stack, box, reason, words):
    status = wait_until(lambda: (lambda s: s if s.state == 3 else None)(stack.status(box)), 60, f"{box} to fail")
    assert status.reason == reason, status
    assert words in status.reason_text, status.reason_text


def test_one_that_ends_the_connection_before_its_first_byte(stack, watch):
    server = FolderServer({uid: 300 for uid in range(1, 11)})
    server.body = lambda uid, nth: None if uid == 4 else FolderServer.body(server, uid, nth)
    found = outcomes(stack, watch(server), 10)
    assert found.pop(4) == ("quarantined", "The connection failed 3 times while it was being fetched. It is still on the server.")
    assert {state for state, _ in found.values()} == {"published"}
    assert server.asked[4] <= 5


@pytest.mark.parametrize("hangs_up", [True, False])
def test_one_too_large_whose_headers_are_refused(stack, watch, hangs_up):
    server = FolderServer({1: 300, 2: LIMIT + 1, 3: LIMIT + 1, 4: 300})
    refusal = None if hangs_up else Refusal(b"NO internal error")
    server.header = lambda uid: refusal if uid == 2 else FolderServer.header(server, uid)
    found = outcomes(stack, watch(server), 4)
    state, reason = found.pop(2)
    assert state == "quarantined"
    assert "The connection failed 3 times" in reason if hangs_up else "internal error" in reason, reason
    assert {state for state, _ in found.values()} == {"published"}


@pytest.mark.parametrize("answer", [b"NO [UNAVAILABLE] x", b"NO [INUSE] x", b"NO [LIMIT] x", b"NO Request is throttled."])
@pytest.mark.parametrize("size", [300, LIMIT + 1])
def test_a_refusal_that_passes_condemns_nothing(stack, watch, answer, size):
    refused = {"now": True, "times": 0}
    server = FolderServer({1: 300, 2: size, 3: 300})

    def maybe(uid, otherwise):
        if uid != 2 or not refused["now"]:
            return otherwise
        refused["times"] += 1
        return Refusal(answer)
    server.body = lambda uid, nth: maybe(uid, FolderServer.body(server, uid, nth))
    server.header = lambda uid: maybe(uid, FolderServer.header(server, uid))
    box = watch(server)
    wait_until(lambda: refused["times"] > 4, 60, "it to be asked for again")
    failed(stack, box, "SERVER_REFUSED", "refused" if size > LIMIT else "for now")
    assert {uid: state for uid, (state, _) in rows(stack, box).items()} == {1: "published", 2: "pending", 3: "published"}
    refused["now"] = False
    assert outcomes(stack, box, 3)[2][0] == "published"


def test_a_refusal_that_does_not_pass(stack, watch):
    server = FolderServer({1: 300, 2: 300, 3: 300})
    server.body = lambda uid, nth: Refusal(b"NO broken") if uid == 2 else FolderServer.body(server, uid, nth)
    found = outcomes(stack, watch(server), 3)
    assert found.pop(2) == ("quarantined", 'The server lists it but does not deliver it: "broken"')
    assert {state for state, _ in found.values()} == {"published"}


def test_one_larger_than_listed_is_fetched_again_within_the_budget(stack, watch):
    server = FolderServer({1: 300, 2: 300, 3: 300})
    server.body = lambda uid, nth: literal(uid, message(uid, 100_000 if uid == 2 else 300))
    found = outcomes(stack, watch(server), 3)
    assert {state for state, _ in found.values()} == {"published"}
    assert server.asked == {1: 1, 2: 2, 3: 1}


def test_one_a_little_larger_than_listed_is_taken_at_once(stack, watch):
    server = FolderServer({1: 80_000})
    server.body = lambda uid, nth: literal(uid, message(uid, 84_000))
    assert outcomes(stack, watch(server), 1)[1][0] == "published"
    assert server.asked == {1: 1}


def test_one_that_grows_each_time_is_set_aside(stack, watch):
    server = FolderServer({1: 300, 2: 300, 3: 300})
    server.body = lambda uid, nth: literal(uid, message(uid, 300 if uid != 2 else 20_000 * 2 ** nth))
    found = outcomes(stack, watch(server), 3)
    state, reason = found.pop(2)
    assert state == "quarantined" and "lists it with 300 bytes and sends more" in reason, reason
    assert {state for state, _ in found.values()} == {"published"}
    assert server.asked == {1: 1, 2: 4, 3: 1}


@pytest.mark.parametrize("size", [LIMIT + 1000, LIMIT + (4 << 20)])
def test_one_that_turns_out_to_be_above_the_limit(stack, watch, size):
    """Within what is taken from a server, and above it, where the connection is given up."""
    server = FolderServer({1: 300, 2: 300, 3: 300})
    server.body = lambda uid, nth: literal(uid, message(uid, size if uid == 2 else 300))
    found = outcomes(stack, watch(server), 3)
    assert {state for state, _ in found.values()} == {"published"}
    assert server.asked[2] == 1


@pytest.mark.parametrize("items", [b"UID 2 BODY[] NIL", b'UID 2 BODY[] ""', b"UID 2 BODY[] {0}\r\n"])
def test_an_empty_body_of_a_listed_mail_is_not_one(stack, watch, items):
    server = FolderServer({1: 300, 2: 300, 3: 300})
    server.body = lambda uid, nth: items if uid == 2 else FolderServer.body(server, uid, nth)
    found = outcomes(stack, watch(server), 3)
    assert found.pop(2) == ("quarantined", "The server lists it with 300 bytes but delivers none.")
    assert {state for state, _ in found.values()} == {"published"}


def test_an_empty_body_that_comes_later_after_all(stack, watch):
    server = FolderServer({1: 300, 2: 300})
    server.body = lambda uid, nth: b"UID 2 BODY[] NIL" if uid == 2 and nth < 3 else FolderServer.body(server, uid, nth)
    found = outcomes(stack, watch(server), 2)
    assert {state for state, _ in found.values()} == {"published"}


def test_header_fields_of_a_relisting_are_not_kept(stack, watch):
    def peak():
        with open(f"/proc/{stack.fetcher.process.child.pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) >> 10

    server = FolderServer({1: 300})
    box = watch(server)
    outcomes(stack, box, 1)
    before = peak()
    long = b"Message-ID: <" + b"y" * 60_000 + b">\r\n\r\n"
    server.uid_validity = 8
    server.date = lambda uid: b"24-Nov-2020 09:00:00 +0000"  # too old to be fetched
    server.listing = lambda uid, nth: (FolderServer.listing(server, uid, nth) + b" BODY[HEADER.FIELDS (MESSAGE-ID DATE FROM)] {%d}\r\n"
                                       % len(long) + long)
    server.sizes = {uid: 300 for uid in range(1, 2001)}
    outcomes(stack, box, 2000)
    assert peak() - before < 50, "MB; 120 MB of headers were sent"


def test_a_sparse_folder_takes_few_commands(stack, watch):
    server = FolderServer({1: 300, 2_000_000_000: 300, 4_000_000_000: 300}, exists=300_000)
    assert {state for state, _ in outcomes(stack, watch(server), 3).values()} == {"published"}
    listings = {command for command in server.commands if "RFC822.SIZE" in command}
    assert len(listings) < 30, listings


def test_a_listing_in_any_order_and_twice(stack, watch):
    server = FolderServer({5: 300, 3: 300, 9: 300, 1: 300})
    server._uids = lambda sequence_set: (lambda uids: uids + uids[:2] if sequence_set.endswith(b"*") else uids)(
        FolderServer._uids(server, sequence_set))
    assert {state for state, _ in outcomes(stack, watch(server), 4).values()} == {"published"}


@pytest.mark.parametrize("items,words", [(b"UID 2 FLAGS ()", "message 2 without RFC822.SIZE and INTERNALDATE"),
                                         (b'UID 2 INTERNALDATE "24-Nov-2026 09:00:00 +0000"', "message 2 without RFC822.SIZE"),
                                         (b"UID 2 RFC822.SIZE 300", "message 2 without INTERNALDATE"),
                                         (b"RFC822.SIZE 300", "without its UID"),
                                         (b"UID 0 RFC822.SIZE 300", "UID"),
                                         (b'UID 1 INTERNALDATE "24-Nov-2020 09:00:00 +0000" RFC822.SIZE 7', "two messages with the UID 1")])
def test_a_listing_that_lacks_something_is_an_error_and_loses_nothing(stack, watch, items, words):
    wrong = {"now": True}
    server = FolderServer({1: 300, 2: 300, 3: 300})
    server.listing = lambda uid, nth: items if uid == 2 and wrong["now"] else FolderServer.listing(server, uid, nth)
    box = watch(server)
    failed(stack, box, "PROTOCOL_ERROR", words)
    assert rows(stack, box) == {}
    wrong["now"] = False
    assert {state for state, _ in outcomes(stack, box, 3).values()} == {"published"}


def test_what_is_incomplete_at_first_is_asked_for_again(stack, watch):
    """As where the flags of a message change before it is listed: a response nobody asked for comes first, or alone."""
    server = FolderServer({1: 300, 2: 300, 3: 300})
    server.listing = lambda uid, nth: b"UID 2 FLAGS (\\Seen)" if uid == 2 and nth == 1 else FolderServer.listing(server, uid, nth)
    box = watch(server)
    assert {state for state, _ in outcomes(stack, box, 3).values()} == {"published"}
    assert server.commands[1].startswith("UID FETCH 2:2 (UID FLAGS"), server.commands
    assert stack.status(box).state == 2


def test_what_is_marked_as_deleted_has_an_outcome(stack, watch):
    server = FolderServer({1: 300, 2: 300})
    server.listing = lambda uid, nth: FolderServer.listing(server, uid, nth).replace(b"FLAGS ()", b"FLAGS (\\Deleted)" if uid == 2
                                                                                    else b"FLAGS ()")
    found = outcomes(stack, watch(server), 2)
    assert found[2] == ("passed_over", "It was marked as deleted on the server when it was first listed.")
    assert found[1][0] == "published"
