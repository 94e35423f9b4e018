"""Mails as a helpdesk gets them, the same ones from the same seed: 70 % small, 20 % with an attachment, 10 % large; 83 KB each
on average."""
import base64
import random

WORDS = ("order invoice printer desk delivery the a we you please find attached question about our with and is not yet arrived "
         "since monday could somebody look into it thank regards customer number contract offer return refund broken works again "
         "Gruesse Lieferung Rechnung anbei bitte um Antwort wir haben die Ware erhalten leider defekt").split()


class Corpus:
    def __init__(self, seed=1):
        self.random = random.Random(seed)
        text = []
        size = 0
        while size < 1 << 20:
            line = " ".join(self.random.choice(WORDS) for _ in range(self.random.randint(6, 13)))
            text.append(line)
            size += len(line) + 2
        self.lines = text
        # Pictures and PDFs: compressed already, so nothing that zstd could shrink.
        self.bytes = self.random.randbytes(4 << 20)

    def prose(self, size):
        out, at = [], self.random.randrange(len(self.lines))
        while size > 0:
            line = self.lines[at % len(self.lines)]
            out.append(line)
            size -= len(line) + 2
            at += 1
        return "\r\n".join(out) + "\r\n"

    def attachment(self, size, name, content_type):
        raw = size * 7 // 10  # base64 and its line ends make 1.37 of one
        at = self.random.randrange(len(self.bytes) - raw)
        encoded = base64.encodebytes(self.bytes[at:at + raw]).replace(b"\n", b"\r\n")
        return (f'Content-Type: {content_type}; name="{name}"\r\nContent-Disposition: attachment; filename="{name}"\r\n'
                f"Content-Transfer-Encoding: base64\r\n\r\n").encode() + encoded

    def mail(self, number):
        r = self.random
        kind = r.random()
        sender = f"customer{r.randrange(2000)}@example{r.randrange(50)}.org"
        received = "".join(f"Received: from mx{i}.example.net (mx{i}.example.net [192.0.2.{r.randrange(255)}])\r\n\tby in{i}.example.org "
                           f"with ESMTPS id {r.getrandbits(48):012x};\r\n\tTue, 24 Nov 2026 09:00:0{i} +0100 (CET)\r\n" for i in range(3))
        head = (f"Return-Path: <{sender}>\r\n{received}DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=s1;\r\n"
                f"\tb={base64.b64encode(r.randbytes(192)).decode()}\r\n"
                f"From: =?utf-8?Q?J=C3=BCrgen_M=C3=BCller?= <{sender}>\r\nTo: support@example.org\r\n"
                f"Subject: =?utf-8?B?{base64.b64encode(f'Anfrage Nr. {number} – Größe'.encode()).decode()}?=\r\n"
                f"Message-ID: <{number}.{r.getrandbits(64):016x}@example.org>\r\nDate: Tue, 24 Nov 2026 09:{number // 60 % 60:02}:{number % 60:02} +0100\r\n"
                f"MIME-Version: 1.0\r\n").encode()
        text = self.prose(r.randint(1000, 4000))
        if kind < 0.35:
            return head + b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + text.encode()
        html = "<html><body>" + text.replace("\r\n", "<br>\r\n") + "</body></html>\r\n"
        alternative = (f"Content-Type: multipart/alternative; boundary=alt\r\n\r\n--alt\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
                       f"Content-Transfer-Encoding: quoted-printable\r\n\r\n{text}Gr=FC=DFe\r\n--alt\r\nContent-Type: text/html; "
                       f"charset=utf-8\r\n\r\n{html}--alt--\r\n").encode()
        if kind < 0.7:
            return head + alternative
        parts = [alternative]
        if kind < 0.9:
            parts.append(self.attachment(r.randint(60_000, 180_000), "Rechnung.pdf", "application/pdf"))
        else:
            total = r.randint(300_000, 790_000)
            parts += [self.attachment(total // 3, f"IMG_{i}.jpg", "image/jpeg") for i in range(3)]
        body = b"".join(b"--mixed\r\n" + part for part in parts) + b"--mixed--\r\n"
        return head + b"Content-Type: multipart/mixed; boundary=mixed\r\n\r\n" + body
