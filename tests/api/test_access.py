"""Who may call what, on real services: every method with no token, an unknown one, and one of each role."""
import os
import re
import subprocess
import threading

import grpc
import pytest

from access import methods, path
from servers import wait_until
from stack import ROLES, Stack, binary, write_secret

from google.rpc import error_details_pb2, status_pb2  # after stack, which knows where the generated protos are
from poststelle.fetcher.v1 import ticket_feed_service_pb2

SERVERS = {"poststelle.config.v1": "config", "poststelle.fetcher.v1": "fetcher", "poststelle.sender.v1": "sender"}
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
UNKNOWN = "a-token-that-nobody-has-given-out"
# What a call that was let in never ends with: the first two are refusals, the others defects.
NEVER = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED,
         grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}


@pytest.fixture(scope="module")
def stack():
    """Everybody needs a token; everything is logged."""
    with pytest.MonkeyPatch.context() as environment:
        for service in ("CONFIG", "FETCHER", "SENDER"):
            environment.setenv(f"POSTSTELLE_{service}_LOG_LEVEL", "debug")
        with Stack(mail=False, loopback=False, sender=True).start() as s:
            yield s


@pytest.fixture(scope="module")
def open_stack():
    """Callers on this machine need none."""
    with Stack(mail=False, sender=True).start() as s:
        yield s


def metadata(token):
    return [("authorization", f"Bearer {token}")] if token else []


def call(channel, where, client_streaming, server_streaming, token):
    """(code, ErrorInfo or None) of an empty request; of a stream, up to its first message."""
    kind = f"{'stream' if client_streaming else 'unary'}_{'stream' if server_streaming else 'unary'}"
    start = getattr(channel, kind)(where)
    try:
        answer = start(iter([b""]) if client_streaming else b"", metadata=metadata(token), timeout=60)
        if server_streaming:
            next(iter(answer), None)
            answer.cancel()
        return grpc.StatusCode.OK, None
    except grpc.RpcError as error:
        status = status_pb2.Status.FromString(dict(error.trailing_metadata()).get("grpc-status-details-bin", b""))
        infos = [d for d in status.details if d.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
        assert len(infos) == 1, (where, error)
        info = error_details_pb2.ErrorInfo()
        infos[0].Unpack(info)
        assert info.domain == "poststelle"
        return error.code(), info


def check(stack, method, token, role):
    """One call; `role`: the caller's, or None for one that is not known."""
    server = getattr(stack, SERVERS[method.package])
    with stack.channel(server) as channel:
        code, info = call(channel, path(method), method.client_streaming, method.server_streaming, token)
    about = (method.name, role, code, info)
    if role is None:
        assert code == grpc.StatusCode.UNAUTHENTICATED, about
        assert info.reason == ("TOKEN_UNKNOWN" if token else "TOKEN_MISSING"), about
    elif role not in method.served:
        assert code == grpc.StatusCode.PERMISSION_DENIED and info.reason == "ROLE_INSUFFICIENT", about
        assert info.metadata["method"] == path(method)[1:] and info.metadata["role"] == role, about
        assert info.metadata["roles"].split(",") == method.served, about
    else:
        assert code not in NEVER, about


def test_every_method_serves_the_roles_of_its_proto_and_nobody_else(stack, capsys):
    count = 0
    for method in methods():
        for token, role in ((None, None), (UNKNOWN, None), *((stack.identities.tokens[role], role) for role in ROLES)):
            check(stack, method, token, role)
            count += 1
    assert count == 7 * len(methods())
    with capsys.disabled():
        print(f"access: methods={len(methods())} calls={count}")


def test_loopback_without_a_token_is_an_admin_where_a_flag_says_so(open_stack):
    for method in methods():
        check(open_stack, method, None, "admin")
        check(open_stack, method, UNKNOWN, None)  # a token that is given counts
        check(open_stack, method, open_stack.identities.tokens["service"], "service")


@pytest.mark.parametrize("server", SERVERS.values())
def test_health_is_open_and_reflection_is_not(stack, open_stack, server):
    def reflect(stack, token):
        with stack.channel(getattr(stack, server)) as channel:
            return call(channel, REFLECTION, True, True, token)

    assert getattr(stack, server).health(b"liveness")
    assert [reflect(stack, token)[1].reason for token in (None, UNKNOWN)] == ["TOKEN_MISSING", "TOKEN_UNKNOWN"]
    for role in ROLES:
        assert reflect(stack, stack.identities.tokens[role])[0] == grpc.StatusCode.OK, role
    assert reflect(open_stack, None)[0] == grpc.StatusCode.OK


def test_the_command_line_brings_a_token(stack):
    def cli(role, *arguments):
        given = ["--token-file", stack.identities.token_file(role)] if role else []
        return stack.cli(*given, *arguments, password="x", check=False)

    refused = cli(None, "mailbox", "list")
    assert refused.returncode == 5 and b"TOKEN_MISSING" in refused.stderr
    create = ("mailbox", "create", "--name", "Mine", "--address", "me@example.org", "--host", "imap.example.org",
              "--disabled")
    refused = cli("operator", *create)
    assert refused.returncode == 5 and b"(ROLE_INSUFFICIENT)" in refused.stderr and b"serves admin" in refused.stderr
    assert cli("admin", *create).returncode == 0
    listed = cli("viewer", "mailbox", "list")
    assert listed.returncode == 0 and b"me@example.org" in listed.stdout
    # The fetcher follows the mailboxes with a token of its own.
    wait_until(lambda: b"disabled" in cli("viewer", "mailbox", "status").stdout, what="the fetcher to know the mailbox")
    path = os.path.join(stack.folder, "open.token")
    with open(path, "w") as f:
        f.write("x" * 40)
    refused = stack.cli("--token-file", path, "mailbox", "list", check=False)
    assert refused.returncode == 2 and b"chmod 600" in refused.stderr


def test_a_token_is_taken_away_without_a_restart(stack):
    method = next(m for m in methods() if m.name == "ListMailboxes")

    def code(role):
        with stack.channel(stack.config) as channel:
            return call(channel, path(method), False, False, stack.identities.tokens[role])[0]

    assert code("viewer") == grpc.StatusCode.OK
    stack.identities.write({role: token for role, token in stack.identities.tokens.items() if role != "viewer"})
    try:
        wait_until(lambda: code("viewer") == grpc.StatusCode.UNAUTHENTICATED, 60, "the token to be taken away")
        assert code("admin") == grpc.StatusCode.OK
        # A mistake is told, and changes nothing.
        write_secret(stack.identities.path, "viewer viewer\n")
        wait_until(lambda: code("admin") == grpc.StatusCode.OK and "access.identities_kept" in stack.config.process.log(), 60,
                   "the mistake to be told")
        assert "identities:1: expected" in stack.config.process.log()
        assert code("admin") == grpc.StatusCode.OK
    finally:
        stack.identities.write(stack.identities.tokens)
    wait_until(lambda: code("viewer") == grpc.StatusCode.OK, 60, "the token to be given again")


def test_a_stream_ends_when_its_token_is_taken_away(stack):
    watch = next(m for m in methods() if m.name == "WatchMailboxes")
    subscribe = next(m for m in methods() if m.name == "Subscribe")
    start = ticket_feed_service_pb2.SubscribeRequest(start={"subscription": "taken-away"}).SerializeToString()
    with stack.channel(stack.config) as config, stack.channel(stack.fetcher) as fetcher:
        stay_open = threading.Event()

        def requests():
            yield start
            stay_open.wait()

        watcher = config.unary_stream(path(watch))(b"", metadata=metadata(stack.identities.tokens["viewer"]), timeout=120)
        subscriber = fetcher.stream_stream(path(subscribe))(requests(), metadata=metadata(stack.identities.tokens["consumer"]),
                                                                timeout=120)
        for stream in (watcher, subscriber):
            next(stream)
        stack.identities.write({role: stack.identities.tokens[role] for role in ("admin", "service")})
        try:
            # With the next thing they would have said, a heartbeat at the latest.
            for stream in (watcher, subscriber):
                with pytest.raises(grpc.RpcError) as ended:
                    for _ in stream:
                        pass
                assert ended.value.code() == grpc.StatusCode.UNAUTHENTICATED
        finally:
            stay_open.set()
            stack.identities.write(stack.identities.tokens)


@pytest.mark.parametrize("program", ["poststelle-config", "poststelle-fetcher"])
@pytest.mark.parametrize("text,mode,told", [("a viewer\n", 0o600, "identities:1: expected"), ("a viewer " + "x" * 20, 0o644, "chmod 600"),
                                            (None, 0, "does not exist"), ("", 0, "nobody could call")])
def test_a_service_does_not_start_with_a_file_that_makes_no_sense(program, text, mode, told, tmp_path):
    file = tmp_path / "identities"
    if text:
        file.write_text(text)
        file.chmod(mode)
    arguments = [] if text == "" else ["--identities-file", str(file)]
    done = subprocess.run([binary(program), "--listen", "127.0.0.1:0", "--database", f"sqlite:{tmp_path}/db", *arguments], timeout=60,
                          capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and told in done.stderr and "--identities-file" in done.stderr


def test_logs_name_the_caller_and_never_a_token(stack):
    """Last: after all of the above, at the highest level."""
    for service in (stack.config, stack.fetcher):
        log = service.process.log()
        assert re.search(r'"event":"call","caller":"viewer","method":"poststelle', log)
        assert re.search(r'"event":"call.refused",.*"caller":"viewer"', log) and '"reason":"TOKEN_UNKNOWN"' in log
        secrets = {*stack.identities.tokens.values(), UNKNOWN}
        assert [s for s in secrets if s in log] == []
