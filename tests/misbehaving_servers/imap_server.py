"""A scripted IMAP server in clear text: each behaviour is a function of the session so far."""
import socket
import ssl
import time

from servers import Listener


class ScriptedServer(Listener):
    """Signs anybody in, lists one message of 100 bytes, and misbehaves at `step` by sending `answer` (bytes), or by saying
    nothing (None), or by hanging up ("close")."""

    def __init__(self, step, answer):
        self.step, self.answer = step, answer
        super().__init__()

    def _misbehaves(self, step, client):
        if step != self.step:
            return False
        if self.answer == "close":
            client.close()
        elif self.answer is not None:
            client.sendall(self.answer)
        return True

    def _serve(self, client):
        try:
            if self._misbehaves("greeting", client):
                return
            client.sendall(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n")
            for line in client.makefile("rb"):
                tag, rest = line.split(b" ", 1)
                word = rest.split()[0].upper()
                if word == b"UID":
                    word = b"BODY" if b"BODY.PEEK[]" in rest else b"LIST"
                step = {b"AUTHENTICATE": "login", b"EXAMINE": "examine", b"LIST": "list", b"BODY": "body"}.get(word, "other")
                if self._misbehaves(step, client):
                    return
                if step == "examine":
                    client.sendall(b"* 1 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 6] x\r\n")
                if step == "list":
                    client.sendall(b'* 1 FETCH (UID 5 FLAGS () INTERNALDATE "24-Nov-2026 09:00:00 +0000" RFC822.SIZE 100)\r\n')
                client.sendall(tag + b" OK done\r\n")
        except OSError:
            pass


class ImpatientServer(ScriptedServer):
    """Over TLS; hangs up when it is spoken to before it has greeted. Counts the sessions that it let in and those that it did not."""

    def __init__(self, certificate, key):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.let_in = self.hung_up = 0
        super().__init__("never", None)

    def _serve(self, client):
        try:
            secure = self.context.wrap_socket(client, server_side=True)
            secure.settimeout(0.3)
            try:
                spoken = bool(secure.recv(1))
            except TimeoutError:
                spoken = False
            secure.settimeout(None)
            if spoken:
                self.hung_up += 1
                secure.close()
                return
            self.let_in += 1
        except OSError:
            return
        super()._serve(secure)


class FolderServer(Listener):
    """Serves a folder in clear text: `sizes` maps the UIDs that it lists to the sizes it tells. What it tells of a message,
    what it sends as its body (`body(uid, nth)`: the nth time it is asked for), and as its headers, are functions that a test
    replaces; they return the bytes of a FETCH response's items, or a Refusal, or None to hang up."""

    def __init__(self, sizes, exists=None, uid_validity=7):
        self.sizes, self.exists, self.uid_validity = dict(sizes), exists, uid_validity
        self.commands = []  # of UID FETCH, in order
        self.asked = {}     # UID: how often its body was asked for
        super().__init__()

    def listing(self, uid, nth):
        return b'UID %d FLAGS () INTERNALDATE "%s" RFC822.SIZE %d' % (uid, self.date(uid), self.sizes[uid])

    def date(self, uid):
        return time.strftime("%d-%b-%Y %H:%M:%S +0000", time.gmtime(time.time() // 3600 * 3600)).encode()

    def body(self, uid, nth):
        return literal(uid, message(uid, self.sizes[uid]))

    def header(self, uid):
        text = message(uid, 200)
        return b"UID %d BODY[HEADER]<0> {%d}\r\n%s" % (uid, len(text), text)

    def _serve(self, client):
        try:
            client.sendall(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n")
            for line in client.makefile("rb"):
                tag, rest = line.rstrip().split(b" ", 1)
                answer = self._answer(rest)
                if answer is None:
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(answer.replace(b"$TAG", tag))
        except OSError:
            pass
        finally:
            client.close()

    def _uids(self, sequence_set):
        out = []
        for part in sequence_set.split(b","):
            first, last = (part.split(b":") + [part])[:2]
            last = max([int(first), *self.sizes]) if last == b"*" else int(last)
            out += [uid for uid in self.sizes if int(first) <= uid <= last]
        return out

    def _answer(self, command):
        words = command.split()
        if words[0].upper() == b"EXAMINE":
            return (b"* %d EXISTS\r\n* OK [UIDVALIDITY %d] x\r\n* OK [UIDNEXT %d] x\r\n$TAG OK done\r\n"
                    % (len(self.sizes) if self.exists is None else self.exists, self.uid_validity, max(self.sizes, default=0) + 1))
        if words[0].upper() != b"UID":
            return b"$TAG OK done\r\n"
        if words[1].upper() == b"SEARCH":
            return b"* SEARCH %s\r\n$TAG OK done\r\n" % b" ".join(b"%d" % uid for uid in self._uids(words[-1]))
        self.commands.append(command.decode())
        out = []
        for uid in self._uids(words[2]):
            if b"BODY.PEEK[]" in command:
                self.asked[uid] = self.asked.get(uid, 0) + 1
                items = self.body(uid, self.asked[uid])
            elif b"BODY.PEEK[HEADER]" in command:
                items = self.header(uid)
            else:
                items = self.listing(uid, len(self.commands))
            if items is None:
                return None
            if isinstance(items, Refusal):
                return b"".join(out) + b"$TAG " + items.answer + b"\r\n"
            if items:
                out.append(b"* %d FETCH (%s)\r\n" % (list(self.sizes).index(uid) + 1 if len(self.sizes) < 100 else 1, items))
        return b"".join(out) + b"$TAG OK done\r\n"


class Refusal:
    def __init__(self, answer):
        self.answer = answer


def message(uid, size):
    """A mail of `size` bytes, or the shortest if that is less."""
    head = b"Subject: mail %d\r\nFrom: a@example.org\r\nMessage-ID: <%d@example.org>\r\n\r\n" % (uid, uid)
    return head + b"x" * (size - len(head))


def literal(uid, raw):
    return b"UID %d BODY[] {%d}\r\n%s" % (uid, len(raw), raw)
