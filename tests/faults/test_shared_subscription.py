"""Several consumers share one subscription, served by two fetchers, and die at any moment.

Given 30 tickets whose mails come in while consumers and fetchers are killed with kill -9 and others come, when all is quiet,
then every event was received by one of them, and nobody received the events of a ticket out of order.
"""
import os
import queue
import random
import subprocess
import sys
import time

from samples import mail
from servers import wait_until
from stack import BUILD, ROOT, Feed, Service, Stack, grpc
from stack import ticket_feed_service_pb2 as feed
from stack import ticket_feed_service_pb2_grpc as feed_grpc

ACCOUNT = "support@localhost"
TICKETS, REPLIES, CONSUMERS = 30, 5, 5
ARGUMENTS = ("--subscription-lease", "2s")


def second_fetcher(stack, program="poststelle-fetcher"):
    return Service("fetcher-2", program, stack.folder, stack.fetcher.arguments)


def thread(ticket, number):
    """Mail `number` of a conversation; the first opens it."""
    refers = "" if number == 0 else f"In-Reply-To: <{ticket}.0@x>\r\nReferences: <{ticket}.0@x>\r\n"
    return mail(f"{ticket} {number}", f"ticket {ticket} number {number}", message_id=f"{ticket}.{number}@x", headers=refers)


class Consumer:
    """The example consumer as a process; what it received is in its file, whatever becomes of it."""

    count = 0

    def __init__(self, stack, address):
        Consumer.count += 1
        self.path = os.path.join(stack.folder, f"consumer-{Consumer.count}")
        with open(self.path, "w") as out, open(self.path + ".err", "w") as err:
            env = {**os.environ, "PYTHONPATH": os.path.join(BUILD, "gen_python")}
            self.child = subprocess.Popen([sys.executable, os.path.join(ROOT, "examples", "consumer.py"), address, "shared"],
                                          env=env, stdout=out, stderr=err)

    def kill(self):
        self.child.kill()
        self.child.wait()

    def received(self):
        """Names of the events in the order of their first arrival."""
        with open(self.path) as f:
            complete = f.read().split("\n")[:-1]
        return list(dict.fromkeys(line.split(" ")[0] for line in complete))


def replay(stack, service):
    """Every event of the feed: name to (subject, partition, offset)."""
    events = {}
    with stack.channel(service) as channel:
        stub = feed_grpc.TicketFeedServiceStub(channel)
        for partition in range(64):
            request = feed.ListTicketEventsRequest(after={"partition": partition}, page_size=1000)
            for e in stub.ListTicketEvents(request, timeout=20).events:
                events[e.name] = (e.message.subject, e.position.partition, e.position.offset)
    return events


def faults(consumers, events):
    """What nobody received, and who received the events of a partition (so of a ticket) out of order."""
    received = [c.received() for c in consumers]
    lost = set(events) - {name for names in received for name in names}
    disorder = []
    for names in received:
        last = {}
        for name in names:
            _, partition, offset = events[name]
            if offset < last.get(partition, 0):
                disorder.append((name, offset, last[partition]))
            last[partition] = offset
    return lost, disorder


def subscription(stack, service):
    with stack.channel(service) as channel:
        request = feed.GetSubscriptionRequest(name="subscriptions/shared")
        try:
            return feed_grpc.TicketFeedServiceStub(channel).GetSubscription(request, timeout=20).subscription
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise
            return feed.Subscription()  # nobody has come yet


def test_nothing_is_lost_when_consumers_and_fetchers_die():
    seed = int(os.environ.get("POSTSTELLE_SEED", time.time_ns() % 1_000_000))
    print(f"seed {seed}")
    chance = random.Random(seed)
    with Stack(fetcher_arguments=ARGUMENTS).start() as stack:
        other = second_fetcher(stack)
        other.start()
        fetchers = [stack.fetcher, other]
        box = stack.create_mailbox(interval="100ms")
        stack.idle(box)
        everybody, live = [], []

        def come():
            live.append(Consumer(stack, chance.choice(fetchers).address))
            everybody.append(live[-1])

        def rest():
            """Those whose fetcher died have ended; others come in their place."""
            for consumer in [c for c in live if c.child.poll() is not None]:
                live.remove(consumer)
            while len(live) < CONSUMERS:
                come()

        try:
            rest()
            wait_until(lambda: len(subscription(stack, other).members) == CONSUMERS, 60, "all to join")
            delivered = []
            for number in range(REPLIES):
                for ticket in range(TICKETS):
                    stack.dovecot.deliver(ACCOUNT, thread(ticket, number))
                    delivered.append(f"{ticket} {number}")
                    if chance.random() < 0.1:
                        victim = chance.choice(live)
                        victim.kill()
                        live.remove(victim)
                        rest()
                if number in (1, 3):
                    fetcher = chance.choice(fetchers)
                    fetcher.kill()
                    fetcher.start()
                    rest()
            stack.idle(box)
            events = replay(stack, other)
            assert sorted(subject for subject, _, _ in events.values()) == sorted(delivered)

            def all_there():
                rest()
                return not faults(everybody, events)[0] and subscription(stack, other).lag == 0
            try:
                wait_until(all_there, 60, "every event")
            except TimeoutError:
                pass  # told by the counts
            assert faults(everybody, events) == (set(), [])

            def shared_out():
                counts = [m.partition_count for m in subscription(stack, other).members]
                return len(counts) == CONSUMERS and max(counts) - min(counts) <= 1 and sum(counts) == 64
            wait_until(shared_out, 30, "equal shares")
            print(f"{len(everybody)} consumers, shares {[m.partition_count for m in subscription(stack, other).members]}")
            # A stream that ends in order hands over at once, and the client is told when to come back.
            ended = []
            channel = stack.channel(other)
            start = feed.SubscribeRequest(start=feed.SubscribeRequest.Start(subscription="drained"))
            call = feed_grpc.TicketFeedServiceStub(channel).Subscribe(iter_and_stay_open(start))
            assert next(call).HasField("started")
            other.stop()
            try:
                ended.extend(call)
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.UNAVAILABLE
                assert "google.rpc.retryinfo" in repr(error.trailing_metadata()).lower()
            else:
                raise AssertionError("the stream ended without an error")
            channel.close()
        finally:
            for consumer in live:
                consumer.kill()
            other.kill()


def iter_and_stay_open(request):
    yield request
    while True:
        time.sleep(60)


def receive_and_die(stack, count):
    """A consumer that gets events and dies before it acknowledges any."""
    with stack.channel(stack.fetcher) as channel:
        start = feed.SubscribeRequest(start=feed.SubscribeRequest.Start(subscription="shared"))
        call = feed_grpc.TicketFeedServiceStub(channel).Subscribe(iter_and_stay_open(start))
        seen = 0
        for response in call:
            seen += response.HasField("delivery")
            if seen == count:
                break
        call.cancel()


def received_afterwards(broken):
    with Stack(fetcher_program="poststelle-fetcher-failpoints").start(
            env={"POSTSTELLE_BREAK": "cursor_before_acknowledgement"} if broken else {}) as stack:
        box = stack.create_mailbox(interval="100ms")
        for i in range(10):
            stack.dovecot.deliver(ACCOUNT, mail(f"mail {i}", f"number {i}", message_id=f"{i}@x"))
        stack.idle(box)
        receive_and_die(stack, 10)
        reader = Feed(stack.fetcher.address, "shared")
        try:
            wait_until(lambda: len(reader.events) >= 10, 60 if not broken else 5, "what was not acknowledged")
        except TimeoutError:
            pass
        reader.close()
        return len(reader.events)


def test_what_was_not_acknowledged_comes_again():
    assert received_afterwards(broken=False) == 10


def test_a_cursor_that_moves_too_early_is_caught():
    assert received_afterwards(broken=True) < 10


def test_refused_too_often_is_set_aside():
    with Stack().start() as stack:
        box = stack.create_mailbox(interval="100ms")
        for number in range(3):
            stack.dovecot.deliver(ACCOUNT, thread(1, number))
            stack.idle(box)
        outgoing = queue.Queue()
        outgoing.put(feed.SubscribeRequest(start=feed.SubscribeRequest.Start(subscription="shared", max_refusals=2)))
        with stack.channel(stack.fetcher) as channel:
            stub = feed_grpc.TicketFeedServiceStub(channel)
            seen, void = [], set()
            for response in stub.Subscribe(iter(outgoing.get, None), timeout=60):
                if not response.HasField("delivery"):
                    continue
                delivery = response.delivery
                if delivery.generation in void:
                    continue
                subject = delivery.event.message.subject
                seen.append(subject)
                if subject == "1 1":
                    void.add(delivery.generation)
                    outgoing.put(feed.SubscribeRequest(refuse=feed.SubscribeRequest.Refuse(
                        position=delivery.event.position, generation=delivery.generation, reason="can't file it")))
                else:
                    outgoing.put(feed.SubscribeRequest(acknowledge=feed.SubscribeRequest.Acknowledge(
                        position=delivery.event.position, generation=delivery.generation)))
                if subject == "1 2":
                    outgoing.put(None)
            assert seen == ["1 0", "1 1", "1 1", "1 2"]
            aside = stub.ListSetAsideEvents(feed.ListSetAsideEventsRequest(subscription="subscriptions/shared")).events
            assert [(e.reason, e.refusals) for e in aside] == [("can't file it", 2)]
            listed = stub.ListSubscriptions(feed.ListSubscriptionsRequest()).subscriptions
            assert [(s.name, s.lag, s.set_aside_count) for s in listed] == [("subscriptions/shared", 0, 1)]
