#!/usr/bin/env python3
"""Fails where a message could be printed with the password in it.

Debian's protobuf (3.21) knows no debug_redact: it prints every field. So services and libraries do not print messages at all, and
the command line only does where ALLOWED says why. Fields that hold a password say so in the protos: INPUT_ONLY, or the
response of CredentialService.

usage: check_secret_printing.py [ROOT]; --self-test is part of each run.
"""
import pathlib
import re
import sys
import tempfile

PRINTS = re.compile(r"\b(?:\w*DebugString|TextFormat|MessageToJsonString|BinaryToJsonString|PrintToString|DebugFormat)\b")
# file: why
ALLOWED = {"cli/output.cc": "prints what services answered; they never answer with a password"}
FIELD = re.compile(r"^\s*(?:optional |repeated )?(?:string|bytes) (\w*(?:password|secret|passphrase|private_key)\w*) = \d+([^;]*);", re.M)
# The one message whose purpose is to hand a password out.
HANDS_OUT = {"proto/poststelle/config/v1/credential_service.proto"}


def check(root):
    problems, files = [], 0
    for folder in ("libs", "services", "cli"):
        for source in sorted((root / folder).rglob("*.[ch]*")):
            path = str(source.relative_to(root))
            if source.name.endswith("_test.cc") or path in ALLOWED:
                continue
            files += 1
            for number, line in enumerate(source.read_text(errors="replace").splitlines(), 1):
                if PRINTS.search(line.split("//")[0]):
                    problems.append(f"{path}:{number}: prints a whole message, its password too; log single fields")
    for proto in sorted((root / "proto" / "poststelle").rglob("*.proto")):
        path = str(proto.relative_to(root))
        files += 1
        for name, options in FIELD.findall(proto.read_text()):
            if path not in HANDS_OUT and "INPUT_ONLY" not in options:
                problems.append(f"{path}: {name} holds a secret and is not INPUT_ONLY")
    return problems, files


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "services/x").mkdir(parents=True)
        (root / "proto/poststelle").mkdir(parents=True)
        (root / "services/x/a.cc").write_text("// DebugString is fine here\nLog(request.ShortDebugString());\n")
        (root / "proto/poststelle/a.proto").write_text("message A {\n  string password = 1;\n  string page_token = 2;\n"
                                                       "  string app_password = 3 [(google.api.field_behavior) = INPUT_ONLY];\n}\n")
        problems, files = check(root)
        assert files == 2 and len(problems) == 2, problems
        assert problems[0].startswith("services/x/a.cc:2:") and "password holds a secret" in problems[1], problems


if __name__ == "__main__":
    self_test()
    found, count = check(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
    print("\n".join(found) if found else f"{count} files print no message that may hold a password")
    sys.exit(1 if found or count == 0 else 0)
