"""The benches in small, so that bench/ can't rot: counts, not times."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import pytest  # noqa: E402

import config_pair  # noqa: E402
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
        contenders.wait_until(lambda: len(between.durations) == 3, 30, "the relay to see the last connection end")
        assert min(between.durations) >= 3 * between.round_trip
    finally:
        between.stop()
        server.stop()


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_publications_leave_the_rows_that_bare_inserts_do(engine):
    # It fails by itself where they don't.
    (result,) = contenders.ledger_publication(engine, mails=240, mailboxes=3, window=8, repeat=1)
    assert result["mails"] == result["message"] == result["event"] == result["raw_message"] == 240
    # Every fourth of a mailbox's 80 mails that has one two windows before it answers that one.
    assert result["ticket"] == 240 - 3 * 16
    assert result["ours"]["commits"] >= 10 and result["bare"]["commits"] > 0


def test_everything_is_scheduled_and_again_after_a_wipe():
    result = contenders.schedule(mailboxes=2000, interval_ms=1000, warm_seconds=2, seconds=2)
    assert result["scheduled"] == result["scheduled_again"] == 2000
    # Each was due at least once, and nobody's twice as often as it should be.
    assert 2000 <= result["steady"]["claims"] <= 2 * 2 * 2000


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_watchers_of_config_get_everything_and_then_the_difference(engine):
    # It fails by itself where a call does, or where a watcher misses a change.
    result = config_pair.compare(engine, mailboxes=60, changes=12, watchers=6, seconds=0.3, repeat=1, concurrency=8)
    (watch,), (first,), (resumed,) = result["watch"], result["sync"], result["resume"]
    assert watch["seen"] == 12 * 6
    assert first["steps"] == 60 and resumed["steps"] == 12
    for load in ("echo", "get", "list"):
        assert result[load][0]["calls"] > 0 and result[load][0]["p99_ms"] > 0
