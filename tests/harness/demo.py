"""What ./run shows: real mail becoming tickets. --smoke checks it and ends, --empty leaves the mail out."""
import argparse
import hashlib
import os
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import samples  # noqa: E402
from servers import wait_until  # noqa: E402
from stack import BUILD, Feed, Stack  # noqa: E402


def say(text=""):
    print(text, flush=True)


def show(event):
    kind = "opened" if event.type == 1 else "reply "
    text = event.message.subject.replace("\0", "\\0")
    mark = "  (undecodable, raw mail kept)" if event.message.undecodable else ""
    names = f"  [{', '.join(a.filename for a in event.message.attachments)}]" if event.message.attachments else ""
    say(f"    {kind}  {event.ticket}  {getattr(event.message, 'from').address}: {text}{names}{mark}")


def deliver_and_show(stack, feed):
    say("==> Delivering mail to two real IMAP mailboxes")
    put = []
    for account, raw in samples.DEMO:
        stack.dovecot.deliver(account, raw)
        # IMAP literals hold no NUL (RFC 9051 section 4.3); Dovecot delivers 0x80 in its place.
        put.append(hashlib.sha256(raw.replace(b"\0", b"\x80")).hexdigest())
        if b"Message-ID: <fire@" in raw or b"Message-ID: <desks@" in raw:
            # A person answers after having read: the first mail is a ticket by then.
            wait_until(lambda: any(e.message.message_id in ("fire@example.org", "desks@example.net") for e in feed.events), 60,
                       "the first ticket")
    say("==> Each one becomes a ticket, or joins one")
    shown = 0
    deadline = time.monotonic() + 60
    while shown < len(put) and time.monotonic() < deadline:
        while shown < len(feed.events):
            show(feed.events[shown])
            shown += 1
        time.sleep(0.05)
    time.sleep(1.5)  # a duplicate would come now
    return put


def check(stack, feed, put):
    """What was put into the mail server against what the subscriber received, by the bytes themselves."""
    got = [hashlib.sha256(stack.raw(e.message.name)).hexdigest() for e in feed.events]
    missing = len([h for h in put if h not in got])
    duplicates = len(got) - len(set(got))
    tickets = len([e for e in feed.events if e.type == 1])
    replies = len([e for e in feed.events if e.type == 2])
    foreign = len([h for h in got if h not in put])
    line = f"smoke: mails={len(put)} tickets={tickets} replies={replies} missing={missing} duplicates={duplicates}"
    good = missing == 0 and duplicates == 0 and foreign == 0 and tickets + replies == len(put) >= 10 and replies >= 1
    return good, line


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--empty", action="store_true")
    parser.add_argument("--data", help="folder that keeps config and ledger")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    say("==> Starting Redis" + ("" if options.empty else ", Dovecot (TLS, private certificates)") + ", config, fetcher and sender")
    with Stack(folder=options.data, mail=not options.empty, lease="10s", sender=True) as stack:
        stack.start()
        good = True
        line = ""
        if not options.empty:
            mailboxes = [stack.create_mailbox("support@localhost", "Support", "tls", "1s", extra=["--also-read"]),
                         stack.create_mailbox("sales@localhost", "Sales", "starttls", "1s")]
            for mailbox in mailboxes:
                say(f"    {mailbox}")
                wait_until(lambda m=mailbox: stack.status(m).state == 2, 60, f"the first poll of {mailbox}")
            feed = Feed(stack.fetcher.address, f"demo-{int(time.time())}")
            put = deliver_and_show(stack, feed)
            good, line = check(stack, feed, put)
            feed.close()
        if options.smoke:
            say("==> Stopping everything")
        else:
            say("\nRunning. Try, in another terminal:\n")
            for name, value in stack.environment().items():
                say(f"  export {name}={value}")
            cli = os.path.join(os.path.relpath(BUILD), "bin", "poststelle")
            say(f"  {cli} mailbox status")
            say(f"  {cli} ticket list")
            say(f"  {cli} mailbox explain Support fire@example.org" if not options.empty else f"  {cli} mailbox create --help")
            say(f"\nCallers on this machine are admins here. To be somebody else: --token-file {stack.folder}/viewer.token")
            say("Ctrl-C ends everything.")
            try:
                signal.pause()
            except KeyboardInterrupt:
                say("\n==> Stopping")
    if options.smoke:
        say(line)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
