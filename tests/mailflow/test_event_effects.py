"""From a real Dovecot to a subscriber: what events do to their tickets (C3, C4, C6, C7), and who wrote the mail."""
import json

import pytest

from samples import mail
from servers import wait_until
from stack import Feed, Stack

from poststelle.config.v1 import mailbox_service_pb2, mailbox_service_pb2_grpc
from poststelle.fetcher.v1 import message_pb2, ticket_feed_service_pb2, ticket_feed_service_pb2_grpc, ticket_pb2

SUPPORT = "support@localhost"
CUSTOMER = "customer@example.org"
OPENED, REPLY = ticket_pb2.TicketEvent.TYPE_TICKET_OPENED, ticket_pb2.TicketEvent.TYPE_REPLY_ADDED
Message = message_pb2.Message

OUT_OF_OFFICE = ("In-Reply-To: <q@x>\r\nReferences: <q@x>\r\nAuto-Submitted: auto-generated\r\nX-Auto-Response-Suppress: All\r\n"
                 "X-MS-Exchange-Inbox-Rules-Loop: customer@example.org\r\nReturn-Path: <>\r\n")
REPORT = 'multipart/report; report-type=delivery-status; boundary="b"'
BOUNCE = ("--b\r\nContent-Type: text/plain\r\n\r\nThis is the mail system at host example.org.\r\n"
          "--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; example.org\r\n\r\n"
          "Final-Recipient: rfc822; customer@example.org\r\nAction: failed\r\nStatus: 5.2.2\r\n"
          "Diagnostic-Code: smtp; 552 5.2.2 mailbox full\r\n"
          "--b\r\nContent-Type: text/rfc822-headers\r\n\r\nMessage-ID: <q@x>\r\nSubject: Question\r\n\r\n--b--\r\n")


def set_options(stack, box, **fields):
    """Sets import options, and enables the mailbox with the same update: no poll knows others."""
    update = mailbox_service_pb2.UpdateMailboxRequest()
    update.mailbox.name = box
    update.mailbox.enabled = True
    update.update_mask.paths.append("enabled")
    for name, value in fields.items():
        if isinstance(value, list):
            getattr(update.mailbox.import_options, name).extend(value)
        else:
            setattr(update.mailbox.import_options, name, value)
        update.update_mask.paths.append(f"import_options.{name}")
    with stack.channel(stack.config) as channel:
        mailbox_service_pb2_grpc.MailboxServiceStub(channel).UpdateMailbox(update, timeout=20)


def replay(stack, service=None):
    """Every event of the feed, as its partitions tell them."""
    events = []
    with stack.channel(service or stack.fetcher) as channel:
        stub = ticket_feed_service_pb2_grpc.TicketFeedServiceStub(channel)
        partition, partitions = 0, 1
        while partition < partitions:
            request = ticket_feed_service_pb2.ListTicketEventsRequest()
            request.after.partition = partition
            page = stub.ListTicketEvents(request, timeout=20)
            events += page.events
            partition, partitions = partition + 1, page.partitions
    return {e.name: e for e in events}


def effects(event):
    return event.type, event.status, list(event.labels), event.reply_via


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_events_carry_status_labels_and_who_answers(database):
    with Stack(database=database).start() as stack:
        stack.cli("mailbox", "create", "--outbound", "--id", "answers", "--name", "Answers", "--address", "answers@example.org",
                  "--host", "smtp.example.org", password="x")
        box = stack.create_mailbox(extra=["--disabled"])
        # Of what was there before the newest comes first: here the question, although it lies behind its answer.
        stack.dovecot.deliver(SUPPORT, mail("Re: Old", "x", message_id="old2@x", headers="In-Reply-To: <old@x>\r\n"))
        stack.dovecot.deliver(SUPPORT, mail("Old", "x", message_id="old@x"))
        set_options(stack, box, new_ticket_status="ticketStatuses/new", reply_ticket_status="ticketStatuses/open",
                    ticket_labels=["labels/order", "labels/return"], reply_via="mailboxes/answers")
        feed = Feed(stack.fetcher.address)
        wait_until(lambda: len(feed.events) == 2, 60, "what was in the folder")
        new = (OPENED, "ticketStatuses/new", ["labels/order", "labels/return"], "mailboxes/answers")
        quiet = (REPLY, "", [], "mailboxes/answers")
        # Historical mail opens tickets as any other, and never fires C6.
        assert all(e.message.historical for e in feed.events)
        assert sorted(effects(e) for e in feed.events) == sorted([new, quiet])

        stack.dovecot.deliver(SUPPORT, mail("Question", "x", message_id="q@x"))
        wait_until(lambda: len(feed.events) == 3, 60, "the question")
        answers = [mail("Re: Question", "Auto-Submitted: auto-replied", message_id="r@x", headers="In-Reply-To: <q@x>\r\n"),
                   mail("Automatic reply: Question", "x", message_id="oof@x", headers=OUT_OF_OFFICE),
                   mail("Undeliverable", BOUNCE, message_id="joins@x", headers="In-Reply-To: <q@x>\r\n", content_type=REPORT),
                   mail("Undelivered Mail Returned to Sender", BOUNCE, "MAILER-DAEMON@example.org", "alone@x", content_type=REPORT,
                        headers="Return-Path: <>\r\nAuto-Submitted: auto-replied\r\n")]
        for raw in answers:
            stack.dovecot.deliver(SUPPORT, raw)
        wait_until(lambda: len(feed.events) == 7, 60, "the answers")
        by = {e.message.message_id: e for e in feed.events}
        assert effects(by["q@x"]) == new
        assert effects(by["r@x"]) == (REPLY, "ticketStatuses/open", [], "mailboxes/answers")
        assert by["r@x"].message.origin == Message.ORIGIN_UNSPECIFIED and not by["r@x"].message.origin_evidence
        assert effects(by["oof@x"]) == effects(by["joins@x"]) == quiet
        assert {by[i].ticket for i in ("q@x", "r@x", "oof@x", "joins@x")} == {by["q@x"].ticket}
        assert by["oof@x"].message.origin == Message.ORIGIN_AUTOMATIC_REPLY
        assert "Auto-Submitted: auto-generated" in by["oof@x"].message.origin_evidence
        # A mail server takes no part in the ticket: what it says proves nothing (SPEC section 5.9).
        assert effects(by["alone@x"]) == new and by["alone@x"].ticket != by["q@x"].ticket
        for name in ("joins@x", "alone@x"):
            assert by[name].message.origin == Message.ORIGIN_BOUNCE
            report, = by[name].message.delivery_reports
            assert (report.recipient, report.action, report.status, report.original_message_id) == \
                (CUSTOMER, "failed", "5.2.2", "q@x")
            assert report.diagnostic == "552 5.2.2 mailbox full"

        # A replay tells the same, on another process and under other options.
        published = {e.name: e for e in feed.events}
        assert replay(stack) == published
        set_options(stack, box, new_ticket_status="ticketStatuses/closed", reply_ticket_status="", ticket_labels=[], reply_via="")
        other = stack.another_fetcher("other")
        other.start()
        wait_until(other.health, what="the other fetcher to be ready")
        assert replay(stack, other) == published
        stack.fetcher.stop()
        stack.fetcher.start()
        wait_until(stack.serving, what="the fetcher to be ready")
        assert replay(stack) == published
        feed.close()

        # Both processes were started since, so they know the new options.
        stack.dovecot.deliver(SUPPORT, mail("Another", "x", message_id="n@x"))
        stack.dovecot.deliver(SUPPORT, mail("Re: Question", "x", message_id="r2@x", headers="In-Reply-To: <q@x>\r\n"))
        wait_until(lambda: len(replay(stack)) == 9, 60, "two more")
        by = {e.message.message_id: e for e in replay(stack).values()}
        assert effects(by["n@x"]) == (OPENED, "ticketStatuses/closed", [], "")
        assert effects(by["r2@x"]) == (REPLY, "", [], "")


def test_the_command_line_tells_them():
    with Stack().start() as stack:
        stack.cli("mailbox", "create", "--outbound", "--id", "answers", "--name", "Answers", "--address", "answers@example.org",
                  "--host", "smtp.example.org", password="x")
        box = stack.create_mailbox(extra=["--disabled"])
        set_options(stack, box, new_ticket_status="ticketStatuses/new", ticket_labels=["labels/order"], reply_via="mailboxes/answers")
        stack.idle(box)
        stack.dovecot.deliver(SUPPORT, mail("Question", "x", message_id="q@x"))
        line = stack.cli("ticket", "watch", "--from-beginning", "--count", "1").stdout.decode()
        assert line.startswith("opened  tickets/")
        assert line.rstrip().endswith("[status ticketStatuses/new; labels labels/order; via mailboxes/answers]")
        stack.dovecot.deliver(SUPPORT, mail("Automatic reply: Question", "x", message_id="oof@x", headers=OUT_OF_OFFICE))
        line = stack.cli("ticket", "watch", "--count", "1").stdout.decode()
        assert line.startswith("reply   tickets/") and line.rstrip().endswith("[via mailboxes/answers; automatic reply]")
        stack.dovecot.deliver(SUPPORT, mail("failed", BOUNCE, "MAILER-DAEMON@example.org", "b@x", content_type=REPORT))
        event = json.loads(stack.cli("-o", "json", "ticket", "watch", "--count", "1").stdout)
        assert event["status"] == "ticketStatuses/new" and event["labels"] == ["labels/order"]
        told = stack.cli("message", "get", event["message"]["name"]).stdout.decode()
        assert "bounce (Content-Type: multipart/report" in told
        assert "customer@example.org failed 5.2.2 552 5.2.2 mailbox full" in told and "q@x" in told
