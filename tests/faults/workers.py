"""Several fetchers that share many mailboxes, mail that keeps coming in, and the checker of what consumers saw."""
import collections
import json
import random
import threading
import time

from samples import mail
from servers import wait_until
from stack import Feed, Stack, fetch_service_pb2, fetch_service_pb2_grpc, mailbox_service_pb2, mailbox_service_pb2_grpc

PASSWORD = "one-for-all"


def account(i):
    return f"box{i}@localhost"


class Workers:
    """`count` fetchers, `mailboxes` mailboxes with an interval of `interval` seconds, all on one Dovecot."""

    def __init__(self, database, count=3, mailboxes=300, interval=2.0, lease="2s", program="poststelle-fetcher", arguments=(),
                 redis=None):
        self.mailboxes, self.interval = mailboxes, interval
        accounts = {account(i): PASSWORD for i in range(mailboxes)}
        self.stack = Stack(database=database, lease=lease, fetcher_program=program, accounts=accounts, any_password=PASSWORD,
                           fetcher_arguments=["--host-connections", "64", *arguments])
        self.fetchers = [self.stack.fetcher]
        for n in range(1, count):
            self.fetchers.append(self.stack.another_fetcher(f"fetcher-{n + 1}", redis=redis[n] if redis else None))

    def start(self, env=None):
        # Services first, calls afterwards: Python's gRPC does not like a process that forks under it.
        for fetcher in self.fetchers:
            fetcher.start(env=env)
        self._create_mailboxes()
        for fetcher in self.fetchers:
            wait_until(lambda f=fetcher: len(self.statuses(f)) == self.mailboxes, 60, "every fetcher to know every mailbox")
        # What is there at a first listing is backlog, which is published newest first: mail is to come after it.
        wait_until(lambda: all(s.last_success_time.seconds for s in self.statuses(self.fetchers[0])), 120, "the first polls")
        return self

    def _create_mailboxes(self):
        with open(self.stack.authority.path) as pem:
            authority = pem.read()
        with self.stack.channel(self.stack.config) as channel:
            stub = mailbox_service_pb2_grpc.MailboxServiceStub(channel)
            calls = []
            for i in range(self.mailboxes):
                request = mailbox_service_pb2.CreateMailboxRequest(mailbox_id=f"box{i}")
                box = request.mailbox
                box.display_name, box.address, box.direction, box.enabled = account(i), account(i), 1, True
                box.connection.protocol, box.connection.host = 1, "localhost"
                box.connection.port, box.connection.encryption = self.stack.dovecot.ports["imaps"], 3
                box.connection.ca_certificates_pem = authority
                box.password_authentication.password = PASSWORD
                box.import_options.fetch_interval.FromNanoseconds(int(self.interval * 1e9))
                box.import_options.also_fetch_read = True
                calls.append(stub.CreateMailbox.future(request, timeout=60))
            for call in calls:
                call.result()

    def statuses(self, fetcher):
        with self.stack.channel(fetcher) as channel:
            stub = fetch_service_pb2_grpc.FetchServiceStub(channel)
            request = fetch_service_pb2.ListStatusesRequest(page_size=1000)
            return list(stub.ListStatuses(request, timeout=60).statuses)

    def held(self):
        return [self.stack.metric("poststelle_fetcher_mailboxes_held", f) for f in self.running()]

    def running(self):
        return [f for f in self.fetchers if f.process and f.process.running()]

    def settled(self):
        """Every mailbox has its worker, and no worker holds a fifth more than another."""
        held = self.held()
        return sum(held) == self.mailboxes and max(held) <= 1.2 * min(held)

    def holder_of(self, fetcher):
        """The name under which this process start holds mailboxes in Redis."""
        started = [json.loads(line) for line in fetcher.process.log().splitlines() if '"worker.started"' in line]
        return started[-1]["holder"]

    def holders(self):
        """Mailbox to the worker that polled it last, from Redis."""
        found = {}
        for shard in range(16):
            read = lambda *words: self.stack.redis.command(*words).split()
            slots = read("hgetall", f"poststelle:{{s{shard}}}:slots")
            workers = dict(zip(slots[1::2], slots[::2]))
            turns = read("zrange", f"poststelle:{{s{shard}}}:turns", 0, -1, "withscores")
            for box, score in zip(turns[::2], turns[1::2]):
                found[box] = workers.get(str(int(float(score)) % 1024))
        return found

    def stop(self):
        self.stack.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Deliveries:
    """Mail that keeps coming in: conversations, a few for each mailbox, in a thread of its own until stopped."""

    def __init__(self, workers, per_second=40, seed=1):
        self.workers, self.pause = workers, 1 / per_second
        self.chance = random.Random(seed)
        self.delivered = []  # (mailbox number, conversation, number in it)
        self.length = collections.Counter()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def deliver(self, box, conversation):
        number = self.length[box, conversation]
        refers = "" if number == 0 else f"References: <{box}.{conversation}.0@x>\r\n"
        raw = mail(f"{box} {conversation} {number}", f"text {box} {conversation} {number}",
                   message_id=f"{box}.{conversation}.{number}@x", headers=refers)
        self.workers.stack.dovecot.deliver(account(box), raw)
        self.length[box, conversation] += 1
        self.delivered.append((box, conversation, number))

    def _run(self):
        while not self.ended.wait(self.pause):
            self.deliver(self.chance.randrange(self.workers.mailboxes), self.chance.randrange(3))

    def stop(self):
        self.ended.set()
        self.thread.join()


def check(workers, deliveries, name, patience=90):
    """What was delivered against what a consumer receives that reads from the beginning: lost, doubled, phantom, and out of
    order within a ticket."""
    expected = {" ".join(map(str, d)) for d in deliveries.delivered}
    feed = Feed(workers.running()[0].address, name)
    try:
        wait_until(lambda: len({e.message.subject for e in feed.events}) >= len(expected), patience, "every mail")
    except TimeoutError:
        pass  # what is missing is told below
    time.sleep(1)  # what is doubled comes now
    feed.close()
    by_name = {e.name: e for e in feed.events}  # delivered at least once: a repeat has the same name
    seen = collections.Counter(e.message.subject for e in by_name.values())
    last, disorder = {}, []
    for event in feed.events:
        box, conversation, number = event.message.subject.split()
        key = event.ticket
        if int(number) < last.get(key, 0):
            disorder.append(event.message.subject)
        last[key] = int(number)
    return {"lost": sorted(expected - set(seen)), "doubled": [s for s, n in seen.items() if n > 1],
            "phantom": sorted(set(seen) - expected), "disorder": disorder}


CLEAN = {"lost": [], "doubled": [], "phantom": [], "disorder": []}


def stopped(fetcher):
    """Whether the process has stopped itself (SIGSTOP)."""
    with open(f"/proc/{fetcher.process.child.pid}/stat") as f:
        return f.read().rsplit(")", 1)[1].split()[0] == "T"
