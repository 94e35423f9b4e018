"""A service whose database is away, being migrated, or goes away: alive, not ready, and back by itself.

Given a service that starts before its database, or loses it under load, then it answers UNAVAILABLE meanwhile, ends at once
when it is told to, and no mail is lost or doubled.
"""
import collections
import socket
import sqlite3
import threading
import time

import grpc
import pytest

from samples import mail
from servers import Postgres, wait_until
from stack import Feed, Service, Stack, mailbox_service_pb2, mailbox_service_pb2_grpc, ticket_feed_service_pb2, \
    ticket_feed_service_pb2_grpc

from google.rpc import error_details_pb2, status_pb2

ACCOUNT = "support@localhost"
MIGRATION_LOCK = f"SELECT pg_advisory_xact_lock({0x706f737473746c6c})"  # libs/sql/migrator.cc
AT_ONCE = 5  # seconds; all else that could end a wait takes ten or more


@pytest.fixture
def postgres(tmp_path):
    server = Postgres(str(tmp_path))
    yield server
    server.stop("immediate")


@pytest.fixture
def make(tmp_path):
    """make(kind, url): that service on that database, alone; not started."""
    made = []

    def make(kind, url, *arguments):
        own = {"config": ["--key-file", f"{tmp_path}/config.key", "--allow-unauthenticated-loopback"],
               "fetcher": ["--redis", "redis://127.0.0.1:1", "--config-address", "127.0.0.1:1", "--allow-unauthenticated-loopback"]}[kind]
        made.append(Service(f"{kind}-{len(made)}", f"poststelle-{kind}", str(tmp_path), ["--database", url, *own, *arguments]))
        return made[-1]

    yield make
    for service in made:
        service.kill()


@pytest.fixture
def stack():
    with Stack(database="postgres") as stack:
        yield stack


both = pytest.mark.parametrize("kind", ["config", "fetcher"])


def waits(service):
    return "service.dependency_away" in service.process.log()


def call(service):
    """A call that needs the database."""
    with grpc.insecure_channel(service.address) as channel:
        if service.name.startswith("config"):
            stub = mailbox_service_pb2_grpc.MailboxServiceStub(channel)
            return stub.ListMailboxes(mailbox_service_pb2.ListMailboxesRequest(), timeout=30)
        stub = ticket_feed_service_pb2_grpc.TicketFeedServiceStub(channel)
        return stub.ListTickets(ticket_feed_service_pb2.ListTicketsRequest(), timeout=30)


def refusal(service):
    """(code, reason, seconds to wait)"""
    with pytest.raises(grpc.RpcError) as raised:
        call(service)
    status, info, retry = status_pb2.Status(), error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    status.ParseFromString(dict(raised.value.trailing_metadata())["grpc-status-details-bin"])
    for detail in status.details:
        for known in (info, retry):
            if detail.Is(known.DESCRIPTOR):
                detail.Unpack(known)
    return raised.value.code(), info.reason, retry.retry_delay.seconds


def assert_alive_but_not_ready(service, reason="NOT_READY"):
    assert service.process.running()
    assert service.health(b"liveness")
    assert not service.health()
    assert not service.dependencies()["database"]
    assert refusal(service) == (grpc.StatusCode.UNAVAILABLE, reason, 1)


def stop_at_once(service):
    begin = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - begin < AT_ONCE


def counts(stack, expected):
    """{subject: how often} of what a fresh subscriber gets, which is then all there is."""
    feed = Feed(stack.fetcher.address, "checker")
    wait_until(lambda: len(feed.events) >= expected, 120, f"{expected} events")
    with stack.channel(stack.fetcher) as channel:
        stub = ticket_feed_service_pb2_grpc.TicketFeedServiceStub(channel)
        answer = stub.ListTicketEvents(ticket_feed_service_pb2.ListTicketEventsRequest())
        total = 0
        for partition in range(answer.partitions):
            request = ticket_feed_service_pb2.ListTicketEventsRequest()
            request.after.partition = partition
            total += stub.ListTicketEvents(request).last_offset
    wait_until(lambda: len(feed.events) >= total, 120, f"all {total} events")
    feed.close()
    return collections.Counter(e.message.subject for e in feed.events)


def test_services_that_start_before_their_database_turn_mail_into_tickets_once_it_is_there(stack):
    stack.create_mailbox()
    assert stack.config.stop() == 0
    stack.postgres.stop()
    stack.config.start(wait=False)
    stack.fetcher.start(wait=False)
    for service in (stack.config, stack.fetcher):
        service.reach()
    stack.dovecot.deliver(ACCOUNT, mail("early", "delivered before anybody could write it down", message_id="1@x"))
    for service in (stack.config, stack.fetcher):
        wait_until(lambda: waits(service), what="the service to notice")
        assert_alive_but_not_ready(service)
    stack.postgres.start()
    wait_until(stack.serving, 60, "the fetcher to be ready")
    assert stack.config.health() and stack.config.dependencies()["database"]
    assert counts(stack, 1) == {"early": 1}


def test_a_database_that_goes_away_under_load_loses_and_doubles_nothing(stack):
    stack.start()
    stack.create_mailbox(interval="100ms")
    delivered = 0
    over = threading.Event()

    def deliver():
        nonlocal delivered
        while not over.wait(0.02):
            stack.dovecot.deliver(ACCOUNT, mail(f"mail {delivered}", "under load", message_id=f"{delivered}@x"))
            delivered += 1

    postman = threading.Thread(target=deliver)
    postman.start()
    try:
        for mode in ("immediate", "fast"):
            seen = stack.metric("poststelle_fetcher_messages_published_total")
            wait_until(lambda: stack.metric("poststelle_fetcher_messages_published_total") > seen, 60, "mail to be published")
            stack.postgres.stop(mode)
            for service in (stack.config, stack.fetcher):
                wait_until(lambda: not service.dependencies()["database"], 60, f"{service.name} to notice")
                assert_alive_but_not_ready(service, "UNAVAILABLE")
            stack.postgres.start()
            wait_until(lambda: stack.serving() and stack.config.health(), 60, "the services to be ready again")
    finally:
        over.set()
        postman.join()
    assert counts(stack, delivered) == {f"mail {i}": 1 for i in range(delivered)}


def test_of_two_fetchers_on_an_empty_database_one_migrates_while_the_other_waits(stack):
    other = Service("fetcher-2", "poststelle-fetcher", stack.folder, stack.fetcher.arguments)
    fetchers = (stack.fetcher, other)
    try:
        with stack.postgres.holding("fetcher", MIGRATION_LOCK):
            for fetcher in fetchers:
                fetcher.start(wait=False)
            for fetcher in fetchers:
                fetcher.reach()
                assert_alive_but_not_ready(fetcher)
            assert stack.postgres.query("fetcher", "SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'") == ["0"]
        for fetcher in fetchers:
            wait_until(lambda: fetcher.alive() and fetcher.health(), 60, f"{fetcher.name} to be ready")
            assert not waits(fetcher)
        stack.create_mailbox()
        stack.dovecot.deliver(ACCOUNT, mail("late", "after the migration", message_id="1@x"))
        assert counts(stack, 1) == {"late": 1}
    finally:
        other.stop()


@both
def test_it_ends_at_once_while_its_database_is_away(kind, make, postgres):
    url = postgres.create_database(kind).replace("postgres@", "postgres:hunter2@")
    postgres.stop()
    service = make(kind, url)
    service.start(wait=False)
    wait_until(lambda: waits(service), what="the service to notice")
    stop_at_once(service)
    assert "hunter2" not in service.process.log()


@both
def test_it_ends_at_once_while_another_process_migrates(kind, make, postgres):
    service = make(kind, postgres.create_database(kind))
    with postgres.holding(kind, MIGRATION_LOCK):
        service.start(wait=False)
        service.reach()
        assert_alive_but_not_ready(service)
        stop_at_once(service)


@both
def test_it_ends_at_once_while_its_database_says_nothing(kind, make):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        service = make(kind, f"postgresql://postgres@127.0.0.1:{silent.getsockname()[1]}/{kind}")
        service.start(wait=False)
        connection, _ = silent.accept()
        service.reach()
        assert_alive_but_not_ready(service)
        stop_at_once(service)
        connection.close()


@both
@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_a_newer_database_is_an_error_at_once(kind, engine, make, postgres, tmp_path):
    url = postgres.create_database(kind) if engine == "postgres" else f"sqlite:{tmp_path}/{kind}.db"
    service = make(kind, url)
    service.start()
    newer = "INSERT INTO schema_migration (version, name) VALUES (1000, 'of the future')"
    if engine == "postgres":
        postgres.query(kind, newer)
    else:
        with sqlite3.connect(f"{tmp_path}/{kind}.db", timeout=20) as database:
            database.execute(newer)
    service.stop()
    service.start(wait=False)
    assert service.process.child.wait(60) == 1
    assert "--database: the database's schema is version 1000, newer than this program's" in service.process.log()


@both
@pytest.mark.parametrize("url", ["mysql://localhost/x", "sqlite:/there/is/no/such/folder/x.db", "postgresql://localhost/x?nonsense=1"])
def test_a_wrong_url_is_an_error_at_once(kind, url, make):
    service = make(kind, url)
    service.start(wait=False)
    assert service.process.child.wait(60) == 1
    assert "--database: " in service.process.log()


def test_while_it_drains_it_is_alive_not_ready_and_serves_until_the_delay_is_over(make, tmp_path):
    service = make("config", f"sqlite:{tmp_path}/config.db", "--drain-delay", "3s")
    service.start()
    wait_until(service.health, what="it to be ready")
    begin = time.monotonic()
    service.process.child.terminate()
    wait_until(lambda: not service.health(), what="it to say that it goes")
    assert service.health(b"liveness")
    call(service)
    assert service.process.child.wait(60) == 0
    assert time.monotonic() - begin >= 3


def test_what_does_not_come_to_rest_in_time_is_named_and_left(stack):
    stack.fetcher.arguments += ["--drain-timeout", "1s"]
    stack.start()
    stack.create_mailbox(interval="100ms")
    stack.postgres.pause()
    try:
        stack.fetcher.process.child.terminate()
        assert stack.fetcher.process.child.wait(30) == 1
        last = stack.fetcher.process.log().splitlines()[-1]
        assert "service.drain_timeout" in last and "states of mailboxes" in last, last
    finally:
        stack.postgres.resume()
