"""Mails as they come in real life."""
import base64


def mail(subject, body, sender="customer@example.org", message_id=None, headers="", charset="utf-8", content_type=None):
    head = f"From: {sender}\r\nTo: support@localhost\r\nSubject: {subject}\r\nDate: Tue, 24 Nov 2026 09:00:00 +0100\r\n"
    if message_id:
        head += f"Message-ID: <{message_id}>\r\n"
    head += headers
    head += f"MIME-Version: 1.0\r\nContent-Type: {content_type or 'text/plain; charset=' + charset}\r\n"
    if not content_type:
        head += "Content-Transfer-Encoding: 8bit\r\n"
    return head.encode() + b"\r\n" + (body if isinstance(body, bytes) else body.encode(charset))


PDF = base64.b64encode(b"%PDF-1.4 an invoice" * 40).decode()
HTML = f"""--frontier\r
Content-Type: text/html; charset=utf-8\r
\r
<p>Please find the <b>invoice</b> attached.</p>\r
--frontier\r
Content-Type: application/pdf; name="Rechnung.pdf"\r
Content-Disposition: attachment; filename*=utf-8''Rechnung%20M%C3%A4rz.pdf\r
Content-Transfer-Encoding: base64\r
\r
{PDF}\r
--frontier--\r
"""

DEMO = [
    ("support@localhost", mail("My printer is on fire", "It is quite urgent.\r\n", message_id="fire@example.org")),
    ("support@localhost", mail("Invoice", HTML, "billing@example.com", "invoice@example.com",
                               content_type="multipart/mixed; boundary=frontier")),
    ("support@localhost", mail("=?utf-8?Q?Gr=C3=BC=C3=9Fe?= aus =?utf-8?B?S8O2bG4=?=", "Schöne Grüße\r\n", message_id="utf8@example.org")),
    ("support@localhost", mail("=?iso-8859-1?Q?R=FCckfrage?=", "Öffnungszeiten?\r\n", message_id="latin1@example.org",
                               charset="iso-8859-1")),
    ("support@localhost", mail("Preis", "Das kostet 5 € – zu viel\r\n", message_id="cp1252@example.org", charset="windows-1252")),
    ("support@localhost", mail("Re: My printer is on fire", "The fire is out.\r\n", message_id="fire2@example.org",
                               headers="In-Reply-To: <fire@example.org>\r\nReferences: <fire@example.org>\r\n")),
    ("support@localhost", b"From: broken@example.org\r\nSubject: Broken\r\nContent-Type: multipart/mixed; boundary=x\r\n"
                          b"Date: never\r\n\r\n--x\r\nContent-Transfer-Encoding: base64\r\n\r\n\xff\xfe!!not base64"),
    ("support@localhost", mail("No Message-ID", "I come from a coffee machine.\r\n", "machine@example.org")),
    ("support@localhost", mail("Zeichen \0 null", b"before\0after\r\n", message_id="nul@example.org")),
    ("support@localhost", b"From: loop@example.org\r\nSubject: Hostile\r\nMessage-ID: <hostile@example.org>\r\n"
                          b"Content-Type: multipart/mixed;\xc3\xa4\xc3\xb6=1; boundary=x\r\n\r\n--x\r\n\r\n--x--\r\n"),
    ("sales@localhost", mail("Quote for 12 desks", "Please send an offer.\r\n", "buyer@example.net", "desks@example.net")),
    ("sales@localhost", mail("Re: Quote for 12 desks", "Make it 14.\r\n", "buyer@example.net", "desks2@example.net",
                             headers="In-Reply-To: <desks@example.net>\r\n")),
]
