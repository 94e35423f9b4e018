"""Two fetchers share mailboxes; one dies or leaves. How long until the other has polled every mailbox."""
import time

from contenders import MailServer, Product, wait_until
from stack import fetch_service_pb2, fetch_service_pb2_grpc


def last_polls(stack):
    """When the stack's first fetcher, or one before it, began to poll each mailbox last."""
    out, token = {}, ""
    with stack.channel(stack.fetcher) as channel:
        stub = fetch_service_pb2_grpc.FetchServiceStub(channel)
        while True:
            answer = stub.ListStatuses(fetch_service_pb2.ListStatusesRequest(page_size=1000, page_token=token), timeout=30)
            out.update((s.mailbox, s.last_poll_time.ToNanoseconds() / 1e9) for s in answer.statuses)
            token = answer.next_page_token
            if not token:
                return out


def takeover(how, mailboxes=50, lease=5.0, interval=0.5):
    """`how`: "kill" (SIGKILL) or "stop" (SIGTERM). Seconds from the signal to the begin of each mailbox's next poll.

    The mailboxes of the one that stays are among them and are quick; about half are the other's.
    """
    accounts = [f"takeover{i}" for i in range(mailboxes)]
    server = MailServer()
    product = None
    try:
        server.fill(accounts, 1)
        product = Product(server, lease=f"{int(lease * 1000)}ms")
        stack = product.stack
        other = stack.another_fetcher("fetcher-other")
        other.start()
        product.create(accounts, interval_ms=int(interval * 1000))

        def held():
            return [int(stack.metric("poststelle_fetcher_mailboxes_held", service)) for service in (stack.fetcher, other)]

        wait_until(lambda: sum(held()) >= mailboxes and min(held()) >= mailboxes * 2 // 5, 120,
                   "both fetchers to share the mailboxes")
        time.sleep(4 * interval)  # the first polls, which make rows, are over
        theirs = held()[1]
        begin = time.time()
        if how == "kill":
            other.kill()
        else:
            other.process.child.terminate()  # not waited for: the mailboxes are to be taken over while it ends
        took = {}

        def taken():
            for name, polled in last_polls(stack).items():
                if polled > begin and name not in took:
                    took[name] = polled - begin
            return len(took) == mailboxes

        wait_until(taken, 60 + 10 * lease, "the other fetcher to poll everything")
        return {"how": how, "mailboxes": mailboxes, "were_the_others": theirs, "seconds": sorted(took.values())}
    finally:
        if product:
            product.stop()
        server.stop()
