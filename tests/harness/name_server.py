"""A private name server."""
import ipaddress
import socket
import struct
import threading

A, MX, AAAA, SRV = 1, 15, 28, 33


def wire(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


class NameServer:
    """Answers from `names` and `records`; whatever is not there does not exist.

    `names`: {name: [[address, ...] for the 1st lookup, ...]}; the last answer is given again and again.
    `records`: {(name, MX): [(preference, host), ...], (name, SRV): [(priority, weight, port, target), ...]}
    While `silent` it answers nothing at all.
    """

    def __init__(self, names=None, records=None, address=("127.0.0.1", 0)):
        self.names, self.records, self.lookups, self.silent = names or {}, records or {}, {}, False
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.address = "%s:%d" % self.socket.getsockname()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            query, client = self.socket.recvfrom(4096)
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1:at + 1 + query[at]].decode("latin-1"))
                at += 1 + query[at]
            kind = struct.unpack(">H", query[at + 1:at + 3])[0]
            if self.silent:
                continue
            answers = self._answer(".".join(labels).lower(), kind)
            records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 0, len(a)) + a for a in answers or ())
            code = 0x8180 if answers is not None else 0x8183
            self.socket.sendto(query[:2] + struct.pack(">HHHHH", code, 1, len(answers or ()), 0, 0) + query[12:at + 5] + records, client)

    def _answer(self, name, kind):
        """None if there is no such name."""
        if (name, kind) in self.records:
            return [struct.pack(">" + "H" * (len(record) - 1), *record[:-1]) + wire(record[-1]) for record in self.records[name, kind]]
        if name not in self.names:
            return None
        if kind not in (A, AAAA):
            return []
        # A lookup is two queries, for IPv4 and for IPv6.
        answers = self.names[name]
        nth = self.lookups.get((name, kind), 0)
        self.lookups[name, kind] = nth + 1
        addresses = [ipaddress.ip_address(a).packed for a in answers[min(nth, len(answers) - 1)]]
        return [a for a in addresses if len(a) == (4 if kind == A else 16)]
