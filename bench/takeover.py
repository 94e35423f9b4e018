"""Two fetchers share mailboxes; one dies or leaves. How long until the other has polled each of the mailboxes that were its."""
import time

from contenders import MailServer, Product, wait_until
from stack import Service, fetch_service_pb2, fetch_service_pb2_grpc


def statuses(stack, service):
    out, token = {}, ""
    with stack.channel(service) as channel:
        stub = fetch_service_pb2_grpc.FetchServiceStub(channel)
        while True:
            answer = stub.ListStatuses(fetch_service_pb2.ListStatusesRequest(page_size=1000, page_token=token), timeout=30)
            out.update((s.mailbox, s.last_poll_time.ToNanoseconds() / 1e9) for s in answer.statuses)
            token = answer.next_page_token
            if not token:
                return out


def shares(stack, services, begin):
    """Who has polled what since `begin`."""
    return [{name for name, polled in statuses(stack, service).items() if polled > begin} for service in services]


def takeover(how, mailboxes=50, lease=5.0, interval=0.5):
    """`how`: "kill" (SIGKILL) or "stop" (SIGTERM). Seconds from the signal to each mailbox's first poll by the other."""
    accounts = [f"takeover{i}" for i in range(mailboxes)]
    server = MailServer()
    product = other = None
    try:
        server.fill(accounts, 1)
        product = Product(server, lease=f"{int(lease * 1000)}ms")
        stack = product.stack
        other = Service("fetcher-other", stack.fetcher.program, stack.folder, stack.fetcher.arguments)
        other.start()
        product.create(accounts, interval_ms=int(interval * 1000))
        both = (stack.fetcher, other)
        # Shared out: each polls about half of them, and nobody polls what the other does.
        theirs = set()

        def settled():
            begin = time.time()
            time.sleep(4 * interval)
            first, second = shares(stack, both, begin)
            theirs.clear()
            theirs.update(second - first)
            return not first & second and len(first | second) == mailboxes and len(second) >= mailboxes // 4

        wait_until(settled, 120, "both fetchers to share the mailboxes")
        begin = time.time()
        if how == "kill":
            other.kill()
        else:
            # Not waited for: the mailboxes are to be taken over while it ends.
            other.process.child.terminate()
        took = {}

        def taken():
            for name, polled in statuses(stack, stack.fetcher).items():
                if name in theirs and polled > begin and name not in took:
                    took[name] = polled - begin
            return len(took) == len(theirs)

        wait_until(taken, 60 + 10 * lease, "the other fetcher to poll everything")
        return {"how": how, "mailboxes": len(took), "lease": lease, "interval": interval, "seconds": sorted(took.values())}
    finally:
        if other:
            other.stop()
        if product:
            product.stop()
        server.stop()
