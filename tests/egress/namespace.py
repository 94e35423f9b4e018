"""Runs in a network namespace of its own in which every address is this machine's: lets the fetcher poll mailboxes at the hosts
that it is given, and tells what became of each and at which addresses a packet arrived.

In (JSON, stdin):  {"egress_allow": text or null, "hosts": [...], "names": {name: [[address, ...] for the 1st lookup, ...]}}
Out (JSON, stdout): {"statuses": {host: [reason, reason_text, polls that went well > 0]}, "reached": [addresses], "dropped": n}
The last answer of a name is given again and again. A name with several answers is polled until it fails.
"""
import ctypes
import ipaddress
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading

from imap_server import FolderServer
from name_server import NameServer
from servers import wait_until
from stack import Stack, fetch_service_pb2, fetch_service_pb2_grpc, mailbox_service_pb2, mailbox_service_pb2_grpc

NAME_SERVER = "127.0.0.53"
OK, FAILING = 2, 3


def enter_a_world_of_our_own(folder):
    """Everything is routed to this machine: whoever is let through by the policy meets our server, whatever the address."""
    for command in ("ip link set lo up", "ip -4 route add local default dev lo", "ip -6 route add local default dev lo"):
        subprocess.run(command.split(), check=True)
    files = {"/etc/resolv.conf": f"nameserver {NAME_SERVER}\n", "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n"}
    for path, text in files.items():
        ours = os.path.join(folder, os.path.basename(path))
        with open(ours, "w") as f:
            f.write(text)
        os.chmod(ours, 0o644)
        subprocess.run(["mount", "--bind", ours, os.path.realpath(path)], check=True)


class Sniffer:
    """The destinations of all packets to a port, on the one interface there is."""

    def __init__(self, port):
        self.reached = set()
        # The kernel picks them out, so that none is lost among the many of the services: load the octet with the version; IPv6
        # (0x20)? load the port behind an IPv6 header, otherwise behind an IPv4 one; is it ours?
        program = [(0x30, 0, 0, 0), (0x45, 2, 0, 0x20), (0x28, 0, 0, 22), (0x05, 0, 0, 1), (0x28, 0, 0, 42), (0x15, 0, 1, port),
                   (0x06, 0, 0, 128), (0x06, 0, 0, 0)]
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in program))
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HP", len(program), ctypes.addressof(code)))  # SO_ATTACH_FILTER
        self.socket.bind(("lo", 3))  # ETH_P_ALL
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        while True:
            packet = self.socket.recv(128)
            destination = packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
            self.reached.add(str(ipaddress.ip_address(destination)))

    def dropped(self):
        return struct.unpack("II", self.socket.getsockopt(263, 6, 8))[1]  # SOL_PACKET, PACKET_STATISTICS


class EverywhereServer(FolderServer):
    """An empty folder, at every address."""

    def _listen(self):
        return socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=256)


def create_mailboxes(stack, port, hosts, changing):
    with stack.channel(stack.config) as channel:
        stub = mailbox_service_pb2_grpc.MailboxServiceStub(channel)
        calls = []
        for i, host in enumerate(hosts):
            request = mailbox_service_pb2.CreateMailboxRequest(mailbox_id=f"box{i}")
            box = request.mailbox
            box.display_name, box.address, box.direction, box.enabled = f"{i}", f"box{i}@localhost", 1, True
            box.connection.protocol, box.connection.host, box.connection.port, box.connection.encryption = 1, host, port, 1
            box.password_authentication.password = "x"
            box.import_options.fetch_interval.FromMilliseconds(200 if host in changing else 3_600_000)
            calls.append(stub.CreateMailbox.future(request, timeout=60))
        for call in calls:
            call.result()


def main():
    wanted = json.load(sys.stdin)
    hosts, names = wanted["hosts"], wanted["names"]
    changing = {name for name, answers in names.items() if len(answers) > 1}
    with tempfile.TemporaryDirectory(prefix="poststelle-egress-") as folder:
        enter_a_world_of_our_own(folder)
        NameServer(names, address=(NAME_SERVER, 53))
        server = EverywhereServer({})
        sniffer = Sniffer(server.port)
        with Stack(mail=False, egress_allow=wanted["egress_allow"]) as stack:
            stack.start()
            create_mailboxes(stack, server.port, hosts, changing)
            with stack.channel(stack.fetcher) as channel:
                stub = fetch_service_pb2_grpc.FetchServiceStub(channel)

                def statuses():
                    found = {}
                    for status in stub.ListStatuses(fetch_service_pb2.ListStatusesRequest(page_size=1000), timeout=60).statuses:
                        found[hosts[int(status.mailbox.removeprefix("mailboxes/box"))]] = status
                    polled = {h for h, s in found.items() if s.state == FAILING or (s.state == OK and h not in changing)}
                    return found if len(polled) == len(hosts) else None

                found = wait_until(statuses, 120, "every mailbox to be polled")
    print(json.dumps({"statuses": {host: [s.reason, s.reason_text, s.last_success_time.seconds > 0] for host, s in found.items()},
                      "reached": sorted(sniffer.reached), "dropped": sniffer.dropped()}))


if __name__ == "__main__":
    main()
