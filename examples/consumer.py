#!/usr/bin/python3
"""A consumer of the ticket feed: prints each event and acknowledges it once it is done with it.

usage: consumer.py ADDRESS SUBSCRIPTION [COUNT]

The token of an identity with the role consumer is read from the file that POSTSTELLE_TOKEN_FILE names (docs/access.md).
Needs python3-grpcio and the generated protos (build/release/gen_python) on PYTHONPATH. Started again under the same name it
goes on where it stopped; what was not acknowledged comes again, so a consumer recognises an event it has by its name.
"""
import os
import queue
import sys

import grpc
from poststelle.fetcher.v1 import ticket_feed_service_pb2 as feed
from poststelle.fetcher.v1 import ticket_feed_service_pb2_grpc as feed_grpc


def main(address, subscription, count):
    outgoing = queue.Queue()
    outgoing.put(feed.SubscribeRequest(start=feed.SubscribeRequest.Start(subscription=subscription)))
    metadata = []
    if token_file := os.environ.get("POSTSTELLE_TOKEN_FILE"):
        with open(token_file) as f:
            metadata.append(("authorization", "Bearer " + f.read().strip()))
    with grpc.insecure_channel(address) as channel:
        stream = feed_grpc.TicketFeedServiceStub(channel).Subscribe(iter(outgoing.get, None), metadata=metadata)
        for response in stream:
            if not response.HasField("delivery"):
                continue
            event = response.delivery.event
            print(event.name, event.message.subject.replace("\n", " "), flush=True)
            outgoing.put(feed.SubscribeRequest(acknowledge=feed.SubscribeRequest.Acknowledge(
                position=event.position, generation=response.delivery.generation)))
            count -= 1
            if count == 0:
                outgoing.put(None)  # closes our side; the service keeps the position
                for _ in stream:
                    pass
                return


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0)
