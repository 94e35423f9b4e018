"""libs/smtp against a real Postfix: what it sends arrives as it was, once, and nothing else arrives."""
import collections
import email
import os
import re
import subprocess

from servers import Authority, Dovecot, Postfix, wait_until

EXPECTED = collections.Counter(
    [f"{way}-{how}-{size}" for way in ("tls", "starttls") for how in ("bdat", "data") for size in ("small", "large")]
    + ["partly", "after-nobody", "after-withheld", "carrier-bdat", "carrier-data", "utf8-ä"])


def arrived(dovecot, account):
    folder = os.path.join(dovecot.maildir(account), "new")
    out = []
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as mail:
            out.append(mail.read())
    return out


def subject(raw):
    return re.search(rb"^Subject: (.*)$", raw, re.M).group(1).decode()


def test_what_is_sent_arrives(tmp_path):
    folder = str(tmp_path)
    authority = Authority(folder)
    dovecot = Dovecot(folder, authority, {"sender@localhost": "secret", "a@localhost": "other"},
                      mechanisms="plain login scram-sha-256")
    postfix = Postfix(folder, authority, dovecot)
    try:
        done = subprocess.run([os.path.join(os.environ["POSTSTELLE_BUILD"], "bin", "smtp_postfix_check")], capture_output=True,
                              text=True, timeout=300, env={**os.environ, "POSTSTELLE_SMTP_CA": authority.path,
                                                           "POSTSTELLE_SMTP_PORT": str(postfix.ports["submission"]),
                                                           "POSTSTELLE_SMTPS_PORT": str(postfix.ports["submissions"])})
        assert done.returncode == 0, done.stdout[-5000:] + postfix.log()[-3000:]
        assert postfix.log().count("sasl_method=SCRAM-SHA-256") >= EXPECTED.total(), postfix.log()[-3000:]
        wait_until(lambda: len(arrived(dovecot, "a@localhost")) >= EXPECTED.total(), what="the mails in the Maildir")
        wait_until(lambda: postfix.log().count(": removed") >= EXPECTED.total(), what="an empty queue")
        mails = arrived(dovecot, "a@localhost")
        assert collections.Counter(subject(raw) for raw in mails) == EXPECTED
        assert arrived(dovecot, "sender@localhost") == []  # no bounce either
        bodies = {subject(raw): raw.split(b"\n\n", 1)[1] for raw in mails}
        for way in ("tls", "starttls"):
            for size in ("small", "large"):
                assert bodies[f"{way}-bdat-{size}"] == bodies[f"{way}-data-{size}"] == bodies[f"tls-bdat-{size}"]
        assert bodies["tls-data-small"] == b".\n..\nhi\n"
        assert bodies["tls-data-large"].startswith(b".dots\n..\n.\n.a line") and len(bodies["tls-data-large"]) > 1_400_000
        assert b"Subject: smuggled" in bodies["carrier-data"] and bodies["carrier-data"] == bodies["carrier-bdat"]
        assert email.message_from_bytes(mails[0])["Return-Path"] == "<sender@localhost>"
    finally:
        postfix.stop()
        dovecot.stop()
