"""Bad requests to every method of every service, made from the descriptors (harness/bad_input.py): refused in the caller's
terms, all mistakes at once, and never a crash."""
import collections
import inspect
import itertools
import os
import re

import grpc
import pytest

import bad_input
from access import methods, path as path_of
from name_server import NameServer
from stack import ROOT, Service, Stack

from google.api import field_behavior_pb2 as behavior  # after stack, which knows where the generated protos are
from google.protobuf import symbol_database
from google.rpc import error_details_pb2, status_pb2
from grpc.reflection.v1alpha import reflection_pb2

CODE = grpc.StatusCode
# What no request can make of a service that has all it needs: a defect, a call that hangs, or a wrong excuse.
NEVER = {CODE.INTERNAL, CODE.UNKNOWN, CODE.UNIMPLEMENTED, CODE.DATA_LOSS, CODE.DEADLINE_EXCEEDED, CODE.CANCELLED, CODE.UNAVAILABLE,
         CODE.UNAUTHENTICATED, CODE.PERMISSION_DENIED, CODE.RESOURCE_EXHAUSTED}
# What may be no mistake: a field that nobody knows is passed over, as from a caller that is newer (and so is one of another wire
# type); numbers may be clamped; a field may be left out. Everything else has to be refused.
MAY_PASS = {"unknown_field", "wrong_wire_type", "huge_number", "negative", "missing"}
# What can't be parsed, whatever it means.
MALFORMED = {"truncated", "invalid_utf8"}
# A good value for a field of that name, so that a call gets past its first checks. What is not here stays empty.
SAMPLES = {"direction": 1, "address": "fuzzed@example.org", "protocol": 1, "host": "imap.example.org", "port": 993, "encryption": 3,
           "login_name": "fuzzed", "password": "a secret", "max_age_days": 30, "folders": ["INBOX"], "action": 3,
           "target_folder": "Done", "color": "#aabbcc", "subscription": "fuzzed",
           "ListSetAsideEventsRequest.subscription": "subscriptions/fuzzed",
           "mailbox": "mailboxes/fuzzed", "message_id": "fuzzed@example.org", "text": "a", "order_by": "display_name",
           "label_selectors": ["team=x"], "page_size": 10, "domain": "example.org", "kind": 1, "seconds": 300}
# What can't be masked though a caller may set it.
NOT_MASKED = {"override_mask": {"etag", "display_name", "counterpart"}}
# The collection of the field `name`, by the resource that a method is about.
COLLECTIONS = {"Mailbox": "mailboxes", "Credentials": "mailboxes", "Label": "labels", "TicketStatus": "ticketStatuses",
               "Subscription": "subscriptions", "Ticket": "tickets"}

IDS = ("mailbox_id", "label_id", "ticket_status_id")

Result = collections.namedtuple("Result", "code reason violations")


def documented_reasons():
    with open(os.path.join(ROOT, "docs", "errors.md")) as f:
        return set(re.findall(r"\b[A-Z][A-Z_]{3,}\b", "".join(line.split("|")[1] for line in f if line.startswith("| "))))


class Sampler:
    """Makes valid requests; names that have to be unique are, over its life."""

    def __init__(self):
        self.count = itertools.count(1)

    def request(self, method):
        out = symbol_database.Default().GetSymbol(method.input)()
        resource = re.sub("^[A-Z][a-z]+", "", method.name)
        self.fill(out, COLLECTIONS.get(resource, "messages") + "/fuzzed")
        return out

    def fill(self, message, name):
        for field in message.DESCRIPTOR.fields:
            oneof = field.containing_oneof
            if bad_input.has(field, behavior.OUTPUT_ONLY) or (oneof and oneof.fields[0] is not field):
                continue
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                if field.name == "labels":
                    message.labels["team"] = "x"
            elif field.message_type is not None:
                if field.label != field.LABEL_REPEATED:
                    self.fill_child(message, field, name)
            else:
                self.set(message, field, name)

    def fill_child(self, message, field, name):
        if field.message_type.full_name == "google.protobuf.FieldMask":
            getattr(message, field.name).paths.extend(mask(field))
            return
        child = type(getattr(message, field.name))()
        self.fill(child, name)
        if child.ByteSize() or bad_input.has(field, behavior.REQUIRED):
            getattr(message, field.name).CopyFrom(child)

    def set(self, message, field, name):
        if field.name == "name":
            value = name
        elif field.name in ("display_name", "german_name", "english_name"):
            value = f"Fuzzed {next(self.count)}"
        else:
            value = SAMPLES.get(f"{message.DESCRIPTOR.name}.{field.name}", SAMPLES.get(field.name))
        if value is None or (field.name == "seconds" and message.DESCRIPTOR.name != "Duration"):
            return
        if field.label == field.LABEL_REPEATED:
            getattr(message, field.name).extend(value)
        else:
            setattr(message, field.name, value)


def resource_field(mask_field):
    """The field of the resource that stands beside a mask."""
    return next(f for f in mask_field.containing_type.fields if f.message_type is not None and f is not mask_field)


def mask(mask_field):
    """Every field that a caller may set in the resource beside a mask."""
    never = {behavior.OUTPUT_ONLY, behavior.IDENTIFIER, behavior.IMMUTABLE}
    unmaskable = NOT_MASKED.get(mask_field.name, {"etag"})
    return [f.name for f in resource_field(mask_field).message_type.fields
            if f.name not in unmaskable and not any(bad_input.has(f, each) for each in never)]


def mask_of(request):
    """(the resource's field, what a mask of the request names of it), or (None, None)."""
    fields = request.DESCRIPTOR.fields
    found = [f for f in fields if f.message_type is not None and f.message_type.full_name == "google.protobuf.FieldMask"]
    if not found:
        return None, None
    return resource_field(found[0]), set(getattr(request, found[0].name).paths)


def is_looked_at(method, request, path):
    """Whether the method says that it looks at that field of this request."""
    if bad_input.is_output(path):
        return False
    if len(path) < 2:
        return True
    update = method.name.startswith("Update")
    if path[0].message_type.name in COLLECTIONS and path[1].name in ("name", "etag"):
        return update  # otherwise the resource is a new one, or one that is not stored
    resource, masked = mask_of(request)
    if path[0] is not resource or path[1].name in masked:
        return True
    return update and bad_input.has(path[1], behavior.IMMUTABLE)


def must_be_refused(method, request, case):
    if case.mutation in MALFORMED:
        return True
    if not case.path or not is_looked_at(method, request, case.path):
        return False
    if case.mutation == "missing":
        # An update leaves alone what it does not say.
        return bad_input.has(case.path[-1], behavior.REQUIRED) and not method.name.startswith("Update")
    return case.mutation not in MAY_PASS


def services_of(stack):
    """Whatever it has started."""
    return [s for s in vars(stack).values() if isinstance(s, Service) and s.process]


class Caller:
    """Calls methods in raw bytes, and checks what holds for every answer."""

    def __init__(self, stack):
        self.stack = stack
        self.channels = {}
        self.reasons = set()

    def served_by(self, service):
        """Names of the services that one of ours says it has."""
        channel = self.channels[service] = grpc.insecure_channel(service.address)
        ask = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                                    reflection_pb2.ServerReflectionRequest.SerializeToString,
                                    reflection_pb2.ServerReflectionResponse.FromString)
        answer = next(ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=60))
        return {s.name for s in answer.list_services_response.service}

    def methods(self):
        """(service, method) of each method that is served, wherever it is."""
        out = []
        for service in services_of(self.stack):
            served = self.served_by(service)
            out += [(service, m) for m in methods() if f"{m.package}.{m.service}" in served]
        return out

    def call(self, service, method, messages, about):
        try:
            self.raw_call(service, method, messages)
            return Result(CODE.OK, "", frozenset())
        except grpc.RpcError as error:
            return self.check(error, about)

    def raw_call(self, service, method, messages):
        """With a token of a role that the method serves, and wholly: some methods keep a part for admins."""
        kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        token = self.stack.identities.tokens["admin" if "admin" in method.served else method.served[0]]
        answer = getattr(self.channels[service], kind)(path_of(method))(
            iter(messages) if method.client_streaming else messages[0], timeout=60, metadata=[("authorization", f"Bearer {token}")])
        if method.server_streaming:
            # A stream of one request may go on for ever; one of many ends when the caller has said all.
            for _ in itertools.islice(answer, 100 if method.client_streaming else 1):
                pass
            answer.cancel()

    def check(self, error, about):
        about = (about, error.code(), error.details()[:300])
        assert error.code() not in NEVER, about
        status = status_pb2.Status.FromString(dict(error.trailing_metadata()).get("grpc-status-details-bin", b""))
        kinds = [d.type_url for d in status.details]
        assert len(kinds) == len(set(kinds)), about
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        assert sum(d.Unpack(info) for d in status.details) == 1, about
        assert info.domain == "poststelle" and re.fullmatch("[A-Z][A-Z_]{0,62}", info.reason), (info, about)
        self.reasons.add(info.reason)
        for d in status.details:
            d.Unpack(bad)
        assert len(error.details()) < 4096, about
        return Result(error.code(), info.reason, frozenset(v.field for v in bad.field_violations))


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def run(request):
    names = NameServer()
    everything = {name: True for name in ("sender",) if name in inspect.signature(Stack).parameters}
    with Stack(mail=False, database=request.param, fetcher_arguments=("--name-servers", names.address),
               config_arguments=("--lookup-timeout", "30s"), **everything) as stack:
        stack.start()
        pids = {service: service.process.child.pid for service in services_of(stack)}
        done = Run(stack)
        assert {m.package for _, m in done.methods} == {m.package for m in methods()}, "a service is not started here"
        done.go()
        yield done
        for service in pids:
            assert service.alive() and service.process.child.pid == pids[service] and service.health()


class Run:
    """Sends all cases to all methods."""

    def __init__(self, stack):
        self.caller, self.sampler = Caller(stack), Sampler()
        self.methods = self.caller.methods()
        self.results = []  # (service, method, Result of the valid request, [(case, Result)])

    def make_samples(self):
        """What the valid requests name, unless it is there."""
        for service, method in self.methods:
            if method.name not in ("CreateMailbox", "CreateLabel", "CreateTicketStatus"):
                continue
            request = self.sampler.request(method)
            setattr(request, next(f.name for f in request.DESCRIPTOR.fields if f.name in IDS), "fuzzed")
            result = self.caller.call(service, method, [request.SerializeToString()], method.name)
            assert result.code in (CODE.OK, CODE.ALREADY_EXISTS), (method.name, result)

    def go(self):
        self.make_samples()
        for service, method in self.methods:
            plain = bad_input.Case((), "none", lambda request: request.SerializeToString())
            usual = self.send(service, method, [plain])
            cases = bad_input.cases(self.sampler.request(method))
            self.results.append((service, method, usual, [(case, self.send(service, method, [case])) for case in cases]))

    def send(self, service, method, cases):
        """A call with all of these mistakes."""
        request = self.sampler.request(method)
        valid = request.SerializeToString()
        # What comes later counts, so each case adds its own to the valid request.
        raw = valid + b"".join(case.spoil(request)[len(valid):] for case in cases) if len(cases) > 1 else cases[0].spoil(request)
        first = cases[0].path and cases[0].path[0]
        # Of a client stream: what does not open it goes behind what does.
        opened = method.client_streaming and first and not request.HasField(first.name)
        about = (method.name, [(bad_input.dotted(case.path), case.mutation) for case in cases])
        result = self.caller.call(service, method, [valid, raw] if opened else [raw], about)
        if result.code == CODE.OK and method.name.startswith("Delete"):
            self.make_samples()
        return result


def path_is_named(path, violations):
    """The field itself, what it is part of, or, of one that is missing, a part of it."""
    name = bad_input.dotted(path)
    return any(v == name or name.startswith(v + ".") or v.startswith(name + ".") for v in violations)


def is_part(request, case):
    """Whether the rest of what is sent is valid: not so in another one of a one-of, which has nothing else."""
    return not case.path or case.path[0].containing_oneof is None or request.HasField(case.path[0].name)


def mistakes(method, request, usual, case, result):
    """What is wrong with the answer to one case."""
    if case.mutation in MALFORMED:
        if (result.code, result.reason) != (CODE.INVALID_ARGUMENT, "MALFORMED_REQUEST"):
            yield "can't be parsed, and the answer is another"
    elif must_be_refused(method, request, case):
        # NOT_FOUND would say that there might be something of such a name; a token that is compared may be just another one.
        if result.code not in (CODE.INVALID_ARGUMENT, CODE.OUT_OF_RANGE, CODE.ABORTED):
            yield "not refused as invalid"
        elif result.violations and is_part(request, case) and not path_is_named(case.path, result.violations):
            yield "the field is not named"
    elif case.mutation in ("unknown_field", "wrong_wire_type") and all(f.label != f.LABEL_REPEATED for f in case.path):
        if result.code != usual.code and is_part(request, case):
            yield "what nobody knows is not passed over"


def test_every_field_spoilt_in_every_way(run, capsys):
    wrong, counts, refused = [], collections.Counter(), collections.Counter()
    for _, method, usual, rows in run.results:
        request = run.sampler.request(method)
        for case, result in rows:
            wrong += [(text, method.name, bad_input.dotted(case.path), case.mutation, result) for text in
                      mistakes(method, request, usual, case, result)]
            keys = [("method", f"{method.service}.{method.name}"), ("mutation", case.mutation), ("all", "all")]
            if must_be_refused(method, request, case):
                keys.append(("must", "must be refused"))
            counts.update(keys)
            if result.code != CODE.OK:
                refused.update(keys)
    with capsys.disabled():
        print()
        for (kind, name), count in counts.items():
            print(f"bad input: {kind} {name}: {count} cases, {refused[kind, name]} refused, {count - refused[kind, name]} accepted")
    assert not wrong, "\n".join(map(str, wrong[:50]))
    assert counts["all", "all"] >= 2000
    assert refused["must", "must be refused"] == counts["must", "must be refused"] >= 0.6 * counts["all", "all"]
    never_refused = [name for (kind, name), _ in counts.items() if kind == "mutation" and not refused[kind, name]]
    assert never_refused == []
    # A method that refuses nothing has nothing to refuse, or does not look.
    assert [name for (kind, name), _ in counts.items() if kind == "method" and not refused[kind, name]] == []


def combinable(first, second):
    """Neither is part of the other, and they are not in the same one-of."""
    for a, b in zip(first.path, second.path):
        if a is not b:
            return a.containing_oneof is None or a.containing_oneof is not b.containing_oneof
    return False


def test_all_mistakes_at_once(run, capsys):
    count, wrong = collections.Counter(), []
    for service, method, _, rows in run.results:
        # One bad value a field, and for each the fields that its refusal names.
        named = {}
        request = run.sampler.request(method)
        for case, result in rows:
            if (result.reason == "INVALID_FIELDS" and case.mutation != "missing" and case.path and case.path[-1].name != "name"
                    and is_part(request, case)):
                named.setdefault(bad_input.dotted(case.path), (case, result.violations))
        singles = list(named.values())
        for size in (2, 3):
            for start in range(len(singles)):
                # Neighbours, and fields that are far apart.
                for step in (1, 7):
                    chosen = [singles[(start + i * step) % len(singles)] for i in range(size)]
                    cases = [case for case, _ in chosen]
                    if not all(combinable(a, b) for a, b in itertools.combinations(cases, 2)):
                        continue
                    result = run.send(service, method, cases)
                    count[method.name] += 1
                    missing = frozenset().union(*(v for _, v in chosen)) - result.violations
                    if missing:
                        wrong.append((method.name, [(bad_input.dotted(c.path), c.mutation) for c in cases], sorted(missing), result))
    with capsys.disabled():
        print("\nbad input, several mistakes:", sum(count.values()), dict(count))
    assert not wrong, "\n".join(map(str, wrong[:50]))
    assert sum(count.values()) >= 200


def test_a_bad_position_of_a_stream_hides_no_bad_text(run):
    """What the generated cases can't show: they know no event that a stream has sent."""
    service, method = next((s, m) for s, m in run.methods if m.name == "Subscribe")
    request = run.sampler.request(method)
    bad = type(request)(refuse={"reason": "a\0b"})
    result = run.caller.call(service, method, [request.SerializeToString(), bad.SerializeToString()], "refuse")
    assert result.violations == {"refuse.position", "refuse.reason"}


def test_every_reason_is_documented(run):
    """Last: of all that was refused above."""
    assert run.caller.reasons - documented_reasons() == set()


def test_a_message_that_is_too_large_is_refused(run):
    """gRPC itself does that, before a service sees it."""
    for service, method in run.methods:
        with pytest.raises(grpc.RpcError) as refused:
            run.caller.raw_call(service, method, [bad_input.sized(50_000, b"x" * 5_000_000)])
        assert refused.value.code() == CODE.RESOURCE_EXHAUSTED, method.name
