"""The drain bench in small, so that bench/ can't rot: counts, not times."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import contenders  # noqa: E402
import relay  # noqa: E402

MAILS = 50


def test_every_contender_sees_every_mail():
    server = contenders.MailServer()
    product = None
    try:
        server.fill(["smoke"], MAILS)
        top = contenders.ceiling(server, ["smoke"])
        assert top["mails"] == MAILS
        assert top["bytes"] == server.bytes
        product = contenders.Product(server)
        product.create(["smoke"], enabled=False)
        ours = product.import_all(MAILS)
        assert ours["mails"] == MAILS
        assert ours["cpu"] > 0 and ours["rss_mb"] > 0
        assert product.events(MAILS) == MAILS
        assert product.failed() == 0
    finally:
        if product:
            product.stop()
        server.stop()


def test_the_relay_delays():
    server = contenders.MailServer()
    between = relay.Relay(server.port)
    try:
        server.fill(["far"], 0)
        done = contenders.ceiling(server, ["far"], 1, "poll", 3, port=between.port)
        assert done["polls"] == 3
        # TCP, TLS, and one packet with all commands.
        assert len(between.durations) == 3
        assert min(between.durations) >= 3 * between.round_trip
    finally:
        between.stop()
        server.stop()
