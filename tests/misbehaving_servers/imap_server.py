"""A scripted IMAP server in clear text: each behaviour is a function of the session so far."""
import socket
import ssl
import threading


class ScriptedServer:
    """Signs anybody in, lists one message of 100 bytes, and misbehaves at `step` by sending `answer` (bytes), or by saying
    nothing (None), or by hanging up ("close")."""

    def __init__(self, step, answer):
        self.step, self.answer = step, answer
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.open = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.open.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

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

    def close(self):
        self.listener.close()
        for client in self.open:
            client.close()


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
