"""Two config processes on one database, one of them killed again and again while mailboxes are changed through both: every
change that was acknowledged is there, and watchers of either process miss none."""
import os
import threading
import time

import grpc
import pytest

from servers import Postgres, wait_until
from stack import Identities, Service, mailbox_pb2, mailbox_service_pb2 as m, mailbox_service_pb2_grpc

UPDATES = 1000
MAILBOXES = 20
WRITERS = 4


def start(folder, name, database, identities):
    service = Service(name, "poststelle-config", folder,
                      ["--database", database, "--key-file", f"{folder}/config.key", *identities.arguments()])
    service.start()
    return service


class Watcher(threading.Thread):
    """Follows one process, over its deaths, by the resume token; keeps every value that it saw of each mailbox."""

    def __init__(self, service):
        super().__init__(daemon=True)
        self.service = service
        self.seen = {}
        self.resumed = self.restarted = 0
        self.done = threading.Event()
        self.token = ""
        self.start()

    def run(self):
        while not self.done.is_set():
            with grpc.insecure_channel(self.service.address) as channel:
                stub = mailbox_service_pb2_grpc.MailboxServiceStub(channel)
                try:
                    for step in stub.WatchMailboxes(m.WatchMailboxesRequest(resume_token=self.token), timeout=60):
                        if step.HasField("upserted"):
                            self.seen[step.upserted.name] = step.upserted
                        self.token = step.resume_token or self.token
                        if self.done.is_set():
                            return
                except grpc.RpcError as error:
                    if error.code() == grpc.StatusCode.OUT_OF_RANGE:
                        self.token = ""
                        self.restarted += 1
                    else:
                        self.resumed += 1
                    time.sleep(0.05)


def writer(index, services, acknowledged, mistakes):
    """Counts up a label of its own mailboxes, through the processes by turns; a change whose answer was lost is read back."""
    mine = [f"mailboxes/box{i:02}" for i in range(MAILBOXES) if i % WRITERS == index]
    for n in range(UPDATES // WRITERS):
        name = mine[n % len(mine)]
        for attempt in range(400):
            service = services[(n + attempt) % len(services)]
            with grpc.insecure_channel(service.address) as channel:
                stub = mailbox_service_pb2_grpc.MailboxServiceStub(channel)
                update = m.UpdateMailboxRequest(mailbox=mailbox_pb2.Mailbox(name=name, labels={"count": str(n)}))
                update.update_mask.paths.append("labels")
                try:
                    stub.UpdateMailbox(update, timeout=10)
                    acknowledged[name] = n
                    break
                except grpc.RpcError as error:
                    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED,
                                            grpc.StatusCode.CANCELLED):
                        mistakes.append(str(error))
                        return
                    time.sleep(0.02)
        else:
            mistakes.append(f"{name} could not be changed")
            return


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_no_acknowledged_change_is_lost_and_no_watcher_misses_one(engine, tmp_path):
    postgres = Postgres(str(tmp_path)) if engine == "postgres" else None
    database = postgres.create_database("config") if postgres else f"sqlite:{tmp_path}/config.db"
    identities = Identities(str(tmp_path))
    services = [start(str(tmp_path), f"config-{i}", database, identities) for i in range(2)]
    watchers = []
    try:
        with grpc.insecure_channel(services[0].address) as channel:
            stub = mailbox_service_pb2_grpc.MailboxServiceStub(channel)
            for i in range(MAILBOXES):
                box = mailbox_pb2.Mailbox(display_name=f"Box {i:02}", direction=1, address=f"box{i}@example.org")
                box.connection.protocol = 1
                box.connection.host = "imap.example.org"
                box.password_authentication.password = "top-secret-word"
                stub.CreateMailbox(m.CreateMailboxRequest(mailbox=box, mailbox_id=f"box{i:02}"))
        watchers = [Watcher(service) for service in services for _ in range(2)]
        acknowledged, mistakes = {}, []
        writers = [threading.Thread(target=writer, args=(i, services, acknowledged, mistakes)) for i in range(WRITERS)]
        for thread in writers:
            thread.start()
        kills = 0
        while any(thread.is_alive() for thread in writers) and kills < 200:
            victim = services[kills % 2]
            time.sleep(0.5)
            if not any(thread.is_alive() for thread in writers) and kills >= 3:
                break
            victim.kill()
            kills += 1
            victim.start()
        for thread in writers:
            thread.join(300)
        assert not mistakes and kills >= 3
        with grpc.insecure_channel(services[0].address) as channel:
            stub = mailbox_service_pb2_grpc.MailboxServiceStub(channel)
            now = {box.name: box for box in stub.ListMailboxes(m.ListMailboxesRequest(page_size=100)).mailboxes}
        assert {name: int(box.labels["count"]) for name, box in now.items()} == acknowledged and len(now) == MAILBOXES
        for watcher in watchers:
            wait_until(lambda: watcher.seen == now, 60, f"a watcher to have seen the last state (it saw {len(watcher.seen)})")
        assert sum(watcher.resumed for watcher in watchers) >= 3
        print(f"updates={UPDATES} kills={kills} resumed={sum(w.resumed for w in watchers)} lost=0 missed=0")
    finally:
        for watcher in watchers:
            watcher.done.set()
        for service in services:
            service.kill()
        if postgres:
            postgres.stop("immediate")
