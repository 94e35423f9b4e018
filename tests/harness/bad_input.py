"""Bad requests made from the descriptors: each field of a request, at any depth, spoilt in every way that its type allows.

A case is a valid request with bytes behind it: in protobuf's wire format what comes later wins or is merged, so bytes for one
path change that field alone, and can be what no library would write. New fields and methods are covered by themselves."""
from collections import namedtuple

from stack import BUILD  # noqa: F401: it knows where the generated protos are

from google.protobuf import descriptor

from google.api import field_behavior_pb2

# `path`: fields from the request on; empty: of the request as a whole. `spoil`: valid request -> bytes.
Case = namedtuple("Case", "path mutation spoil")

VARINT, FIXED64, BYTES = 0, 1, 2  # wire types
TOO_LONG = 70_000  # more than any text field takes
HUGE = 3_000_000  # below gRPC's limit of 4 MiB for a message
DEPTH = 8

FD = descriptor.FieldDescriptor
INTEGERS = {FD.TYPE_INT32, FD.TYPE_INT64, FD.TYPE_UINT32, FD.TYPE_UINT64, FD.TYPE_SINT32, FD.TYPE_SINT64}
FIXED = {FD.TYPE_DOUBLE, FD.TYPE_FLOAT, FD.TYPE_FIXED32, FD.TYPE_FIXED64, FD.TYPE_SFIXED32, FD.TYPE_SFIXED64}
LENGTH_DELIMITED = {FD.TYPE_STRING, FD.TYPE_BYTES, FD.TYPE_MESSAGE}


def varint(number):
    number %= 1 << 64
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def tag(number, wire_type):
    return varint(number << 3 | wire_type)


def sized(number, content):
    return tag(number, BYTES) + varint(len(content)) + content


UNKNOWN = sized(50_000, b"what")  # a field that nobody knows


def within(path, content):
    """`content`, which stands in the message of the last field of `path`, from the request on."""
    for field in reversed(path):
        content = sized(field.number, content)
    return content


def paths(message, path=()):
    """Every field below `message`, maps and repeated messages included."""
    for field in message.fields:
        if len(path) < DEPTH and field.message_type not in [f.message_type for f in path if f.message_type]:
            yield (*path, field)
            if field.type == FD.TYPE_MESSAGE:
                yield from paths(field.message_type, (*path, field))


def has(field, behavior):
    return behavior in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


def is_output(path):
    """Only the service sets it: what a caller gives is not looked at."""
    return any(has(field, field_behavior_pb2.OUTPUT_ONLY) for field in path)


def dotted(path):
    """As a violation names it; a map by its own name."""
    names = []
    for field in path:
        if field.containing_type.GetOptions().map_entry:
            break
        names.append(field.name)
    return ".".join(names)


def value_at(request, path):
    """What a valid request has there; None if nothing."""
    message = request
    for field in path[:-1]:
        if field.label == FD.LABEL_REPEATED or not message.HasField(field.name):
            return None
        message = getattr(message, field.name)
    last = path[-1]
    if last.type == FD.TYPE_MESSAGE and last.label != FD.LABEL_REPEATED and not message.HasField(last.name):
        return None
    return getattr(message, last.name) or None


def without(request, path):
    """The request without that field."""
    out = type(request)()
    out.CopyFrom(request)
    message = out
    for field in path[:-1]:
        message = getattr(message, field.name)
    message.ClearField(path[-1].name)
    return out


def inside(character):
    return lambda good: (good[:len(good) // 2] + character + good[len(good) // 2:]).encode("utf-8", "surrogateescape")


def behind(more):
    return lambda good: (good + more).encode()


# (mutation, good text -> bytes)
TEXTS = [("cr", inside("\r")), ("cr", behind("\r")), ("lf", inside("\n")), ("lf", behind("\n")), ("nul", inside("\0")),
         ("nul", behind("\0")), ("too_long", behind("a" * TOO_LONG)), ("huge", behind("a" * HUGE)),
         ("invalid_utf8", inside("\udcff\udcc0"))]


def spoilt(field):
    """(mutation, good value -> bytes of the field)."""
    number = field.number
    if field.type == FD.TYPE_STRING:
        for mutation, make in TEXTS:
            yield mutation, lambda value, make=make: sized(number, make((value if isinstance(value, str) else "") or "a1b2"))
    elif field.type == FD.TYPE_BYTES:
        yield "too_long", lambda _: sized(number, b"\0" * TOO_LONG)
        yield "huge", lambda _: sized(number, b"\0" * HUGE)
    elif field.type == FD.TYPE_ENUM:
        for value in (999, -1):
            yield "wrong_enum", lambda _, value=value: tag(number, VARINT) + varint(value)
    elif field.type in INTEGERS:
        bits = 31 if field.cpp_type in (FD.CPPTYPE_INT32, FD.CPPTYPE_UINT32) else 63
        yield "huge_number", lambda _: tag(number, VARINT) + varint(2**bits - 1)
        yield "negative", lambda _: tag(number, VARINT) + varint(-1)
    elif field.type == FD.TYPE_MESSAGE:
        yield "unknown_field", lambda _: sized(number, UNKNOWN)
    if field.type in LENGTH_DELIMITED:
        yield "truncated", lambda _: tag(number, BYTES) + varint(100) + b"x"
    other = VARINT if field.type in LENGTH_DELIMITED or field.type in FIXED else FIXED64
    yield "wrong_wire_type", lambda _: tag(number, other) + (varint(1) if other == VARINT else bytes(8))


def cases(valid):
    """All of them, in the same order each time, for a type of request of which `valid` is one. What a case makes of a valid
    request (of `valid`, or another one with the same fields set) are the bytes to send."""
    for mutation, more in (("unknown_field", UNKNOWN), ("truncated", tag(1, BYTES) + varint(100) + b"x"), ("truncated", b"\xff")):
        yield Case((), mutation, lambda request, more=more: request.SerializeToString() + more)
    for path in paths(valid.DESCRIPTOR):
        if value_at(valid, path) is not None:
            yield Case(path, "missing", lambda request, path=path: without(request, path).SerializeToString())
        for mutation, make in spoilt(path[-1]):
            yield Case(path, mutation, lambda request, path=path, make=make: request.SerializeToString() + within(
                path[:-1], make(value_at(request, path))))
