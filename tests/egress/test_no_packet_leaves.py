"""The egress policy, with the real fetcher in a network namespace in which every address would answer: what is forbidden is refused
in the same words and not one packet goes there; what is allowed is reached, so that the check can fail."""
import ipaddress
import json
import os
import subprocess
import sys

import pytest

from stack import ROOT

HERE = os.path.dirname(os.path.abspath(__file__))
PATHS = os.pathsep.join([os.path.join(ROOT, "tests", "harness"), os.path.join(ROOT, "tests", "misbehaving_servers")])

with open(os.path.join(ROOT, "libs", "net", "forbidden_addresses.txt")) as table:
    FORBIDDEN = [line.split()[0] for line in table if not line.startswith("#")]
FORBIDDEN_NAMES = {
    "private.test": ["10.1.0.1"], "metadata.test": ["169.254.169.254"], "loopback.test": ["127.0.0.1"], "local6.test": ["fd00::11"],
    "mapped.test": ["::ffff:10.1.0.2"], "nat64.test": ["64:ff9b::a01:3"], "both.test": ["10.1.0.4", "fd00::12"],
}
LOCALHOST = ["localhost", "LOCALHOST"]
# No addresses, and no names that somebody has; a resolver may still see something in them.
STRANGE = ["localhost.", "sub.localhost", "127.0.0.1.", "[::1]", "１２７.0.0.1", "127。0。0。1", "0x7f.0.0.0.1", "127.0.0.256",
           "1.2.3.4.5", "missing.test"]
PUBLIC = ["8.8.8.8", "2a00:1450::8", "64:ff9b::8.8.4.4"]
MIXED = ["8.8.1.1", "10.1.0.5", "fd00::13"]
CHANGING = {f"changing{i}.test": [[f"8.8.2.{i}"], [address]] for i, address in enumerate(
    ["10.1.1.1", "127.0.0.1", "169.254.169.254", "192.168.1.1", "fd00::14", "::1", "::ffff:10.1.1.2", "100.64.0.9"])}


def unshare():
    """How to get a network namespace: as root, or as somebody who is root in a user namespace."""
    for options in (["--net", "--mount"], ["--net", "--mount", "--map-root-user"]):
        command = ["unshare", *options, "--"]
        if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    pytest.fail("this test needs a network namespace: run it as root, or allow unprivileged user namespaces")


def run(egress_allow, hosts, names):
    """What became of `hosts`, as namespace.py tells."""
    request = {"egress_allow": egress_allow, "hosts": hosts, "names": names}
    done = subprocess.run([*unshare(), sys.executable, "-B", os.path.join(HERE, "namespace.py")], input=json.dumps(request).encode(),
                          env={**os.environ, "PYTHONPATH": PATHS}, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    result = json.loads(done.stdout)
    assert result["dropped"] == 0, "packets that nobody saw"
    return result


def once(names):
    return {name: [addresses] for name, addresses in names.items()}


def refusal(host, result):
    """(reason, text without the host) of a mailbox that never got anywhere."""
    reason, text, _ = result["statuses"][host]
    assert text.startswith(f"{host}:"), text
    return reason, text.split(": ", 1)[1] if reason == "ADDRESS_NOT_ALLOWED" else ""


def test_by_default_only_public_addresses_are_reached():
    names = {**once(FORBIDDEN_NAMES), "mixed.test": [MIXED], **CHANGING}
    refused = [*FORBIDDEN, *FORBIDDEN_NAMES, *LOCALHOST, *CHANGING]
    result = run(None, [*refused, *STRANGE, *PUBLIC, "mixed.test"], names)
    assert len(FORBIDDEN) >= 80
    assert {refusal(host, result) for host in refused} == {
        ("ADDRESS_NOT_ALLOWED", "the server address is not allowed by the egress policy of this installation. "
                                "An administrator can allow its network with --egress-allow.")}
    assert {refusal(host, result)[0] for host in STRANGE} == {"HOST_UNKNOWN"}
    # A name that changes its answer was let through while it was harmless, and not a moment longer.
    assert all(result["statuses"][name][2] for name in [*CHANGING, *PUBLIC, "mixed.test"])
    public = {str(ipaddress.ip_address(a)) for a in [*PUBLIC, MIXED[0], *(answers[0][0] for answers in CHANGING.values())]}
    assert set(result["reached"]) == public


def test_what_is_allowed_is_reached_and_nothing_else():
    names = once(FORBIDDEN_NAMES)
    result = run("10.0.0.0/8,127.0.0.1,[fd00::/16]:1-65535", [*FORBIDDEN, *FORBIDDEN_NAMES], names)
    allowed = [host for host, status in result["statuses"].items() if status[2]]
    assert {"127.0.0.1", "2130706433", "10.255.255.255", "fd00::1", "64:ff9b::10.0.0.1", "private.test", "local6.test"} <= set(allowed)
    assert {"127.0.0.2", "::1", "fdff:ffff:ffff:ffff::1", "2002:a00:1::1", "metadata.test"}.isdisjoint(allowed)
    others = {a for a in result["reached"] if not a.startswith(("10.", "fd00:"))}
    # NAT64 and ISATAP are public themselves: they are allowed where the address that they carry is.
    assert others == {"127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::a01:3", "2a00:1450:4001::5efe:a00:1",
                      "2a00:1450:4001:0:200:5efe:7f00:1"}
    assert {refusal(h, result)[0] for h in result["statuses"] if h not in allowed} == {"ADDRESS_NOT_ALLOWED"}


def test_without_a_policy_the_same_packets_do_leave():
    result = run("0.0.0.0/0,::/0", FORBIDDEN, {})
    assert sum(status[2] for status in result["statuses"].values()) >= 80  # the kernel itself refuses multicast and the like
    assert {"10.0.0.1", "169.254.169.254", "fd00:ec2::254", "64:ff9b::a9fe:a9fe", "2002:a00:1::1", "::1"} <= set(result["reached"])
