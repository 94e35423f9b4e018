"""Servers that can do little, or refuse, after an import; and a folder that breaks the session of a mailbox with several."""
import sqlite3
import threading

import pytest

from imap_server import FolderServer
from servers import wait_until
from stack import Stack


class ActingServer(FolderServer):
    """A folder whose messages can be changed as far as `capabilities` go. `refused(verb, uid)` says the words of a refusal."""

    def __init__(self, sizes, capabilities=b"", read_only=False):
        self.capabilities, self.read_only = capabilities, read_only
        self.changes = []  # what was asked for, in order
        self.marked, self.copied, self.lock = set(), [], threading.Lock()
        self.refused = lambda verb, uid: None
        super().__init__(sizes)

    def _answer(self, command):
        words = command.upper().split()
        if words[0] == b"SELECT":
            opened = super()._answer(command.replace(command.split()[0], b"EXAMINE"))
            return opened.replace(b"$TAG OK", b"$TAG OK [READ-ONLY]" if self.read_only else b"$TAG OK [READ-WRITE]")
        if words[0] == b"CAPABILITY":
            return b"* CAPABILITY IMAP4rev1 " + self.capabilities + b"\r\n$TAG OK done\r\n"
        if words[0] in (b"EXPUNGE", b"CLOSE"):
            self.changes.append(words[0].decode())
        if words[:2] == [b"UID", b"SEARCH"] and b"HEADER" in words:
            return b"* SEARCH\r\n$TAG OK done\r\n"
        if words[0] != b"UID" or words[1] not in (b"STORE", b"COPY", b"MOVE", b"EXPUNGE"):
            return super()._answer(command)
        with self.lock:
            verb, uids = words[1].decode(), self._uids(words[2])
            self.changes.append(command.decode())
            for uid in uids:
                if self.refused(verb, uid):
                    return b"$TAG NO " + self.refused(verb, uid) + b"\r\n"
            if verb == "STORE":
                self.marked |= set(uids)
            if verb == "COPY":
                self.copied += uids
            if verb in ("MOVE", "EXPUNGE"):
                for uid in uids:
                    self.sizes.pop(uid)
            return b"$TAG OK done\r\n"


@pytest.fixture(scope="module")
def stack():
    with Stack(mail=False, fetcher_program="poststelle-fetcher", fetcher_arguments=["--command-timeout", "4s"]).start() as s:
        yield s


@pytest.fixture
def watch(stack):
    made = []

    def make(server, action, target="", folders=("INBOX",)):
        box = stack.create_mailbox(name="hostile", encryption="none", port=server.port, ca=False, extra=["--disabled"])
        made.append((server, box))

        def change(mailbox):
            del mailbox.import_options.folders[:]
            mailbox.import_options.folders.extend(folders)
            mailbox.enabled = True
        stack.after_import(box, action, target)
        stack.change_mailbox(box, change)
        return box
    yield make
    for server, box in made:
        stack.cli("mailbox", "delete", box)
        server.close()


def due(stack, box):
    with sqlite3.connect(f"file:{stack.folder}/fetcher.db?mode=ro", uri=True, timeout=20) as ledger:
        return ledger.execute("SELECT uid, attempts, problem FROM after_import WHERE mailbox_key LIKE ? ORDER BY uid",
                              [box.split("/")[1] + "@%"]).fetchall()


def test_a_server_without_uidplus_only_marks(stack, watch):
    server = ActingServer({uid: 300 for uid in (1, 2, 3)})
    box = watch(server, "move", "Done")
    wait_until(lambda: "UIDPLUS" in stack.status(box).notice, 60, "a notice")
    wait_until(lambda: due(stack, box) == [], 60, "all to be settled")
    assert server.changes == ['UID COPY 1:3 "Done"', "UID STORE 1:3 +FLAGS.SILENT (\\Deleted)"]


def test_a_server_without_move_copies_and_removes_by_uid(stack, watch):
    server = ActingServer({uid: 300 for uid in (1, 2, 3)}, b"UIDPLUS")
    box = watch(server, "move", "Done")
    wait_until(lambda: server.sizes == {}, 60, "the messages to be removed")
    wait_until(lambda: due(stack, box) == [], 60, "all to be settled")
    assert server.changes[-1] == "UID EXPUNGE 1:3" and sorted(server.copied) == [1, 2, 3]
    assert "EXPUNGE" not in server.changes and "CLOSE" not in server.changes
    assert stack.status(box).notice == ""


def test_one_that_is_refused_holds_back_no_other_and_is_given_up_visibly(stack, watch):
    server = ActingServer({uid: 300 for uid in (1, 2, 3)}, b"UIDPLUS MOVE")
    server.refused = lambda verb, uid: b"[NOPERM] you may not" if uid == 2 else None
    box = watch(server, "move", "Done")
    wait_until(lambda: server.sizes == {2: 300}, 60, "the others to be moved")
    wait_until(lambda: "you may not" in stack.status(box).notice, 60, "a notice")
    assert stack.status(box).state == 2
    stack.fetcher.stop()
    stack.alter_ledger("UPDATE after_import SET attempts = 9, next_time = 0")  # as after some hours
    stack.start()
    wait_until(lambda: "given up" in stack.status(box).notice, 60, "it to be given up")
    (uid, tries, problem), = due(stack, box)
    assert (uid, tries) == (2, 10) and "you may not" in problem
    outcome, = [o for o in stack.explain(box, "2@example.org") if o.kind == 2]
    assert "After its import it was not moved" in outcome.reason
    before = len(server.changes)
    stack.idle(box)
    assert len(server.changes) == before


def test_a_folder_that_is_read_only_is_told(stack, watch):
    server = ActingServer({1: 300}, b"UIDPLUS MOVE", read_only=True)
    box = watch(server, "delete")
    wait_until(lambda: "read-only" in stack.status(box).notice, 60, "a notice")
    assert server.changes == [] and len(due(stack, box)) == 1


class TwoFolders(FolderServer):
    """The same messages in every folder; listing one called "Bad" ends the connection."""

    def _answer(self, command):
        if command.upper().startswith(b"EXAMINE"):
            self.standing.folder = command.split(b" ", 1)[1].strip(b'"')
        elif command.upper().startswith(b"UID FETCH") and self.standing.folder == b"Bad":
            return None
        return super()._answer(command)

    standing = threading.local()  # a connection has a thread of its own


def test_a_folder_that_ends_the_session_blocks_no_other(stack, watch):
    server = TwoFolders({uid: 300 for uid in (1, 2, 3)})
    box = watch(server, "leave", folders=("Bad", "INBOX"))
    wait_until(lambda: stack.status(box).published == 3, 60, "the other folder's mail")
    assert stack.status(box).state == 3


class Recording(FolderServer):
    """Writes down what each session asked for."""

    def __init__(self, sizes):
        self.sessions = []
        super().__init__(sizes)

    def _serve(self, client):
        self.present.commands = []
        self.sessions.append(self.present.commands)
        super()._serve(client)

    def _answer(self, command):
        self.present.commands.append(command.split()[0].upper().decode())
        return super()._answer(command)

    present = threading.local()


def test_a_quiet_poll_of_many_folders_asks_nothing_but_their_state(stack, watch):
    server = Recording({1: 300})
    box = watch(server, "leave", folders=("INBOX", "A", "B", "C", "D"))
    wait_until(lambda: stack.status(box).published >= 1, 60, "the first mail")
    stack.idle(box)
    quiet = ["AUTHENTICATE", *["EXAMINE"] * 5, "LOGOUT"]
    wait_until(lambda: server.sessions[-2] == quiet, 60, f"a quiet poll; now {server.sessions[-3:]}")
    assert not any("SELECT" in commands for commands in server.sessions)
