#!/usr/bin/env python3
"""Fails when a library or service includes what it did not declare in its CMakeLists.txt (poststelle_library … DEPS …).

usage: check_layers.py [ROOT]; --self-test shows that it can fail.
"""
import pathlib
import re
import sys
import tempfile

CALL = re.compile(r"poststelle_library\(\s*(\w+)(.*?)\)", re.S)
INCLUDE = re.compile(r'^#include "((?:libs|services|cli)/[^"]+)"', re.M)
KEYWORDS = {"SOURCES", "DEPS", "LINK"}


def declared(text):
    """name -> set of DEPS, for every poststelle_library in a CMakeLists.txt."""
    out = {}
    for name, body in CALL.findall(text):
        section, deps = None, set()
        for word in body.split():
            if word in KEYWORDS:
                section = word
            elif section == "DEPS":
                deps.add(word)
        out[name] = deps
    return out


def closure(room, graph):
    seen, todo = set(), [room]
    while todo:
        for dep in graph.get(todo.pop(), ()):
            if dep not in seen:
                seen.add(dep)
                todo.append(dep)
    return seen


def room_of(path):
    """libs/net/x.h -> net; services/fetcher/x.h -> services/fetcher; cli/x.h -> cli"""
    parts = path.split("/")
    return parts[1] if parts[0] == "libs" else parts[0] if parts[0] == "cli" else "/".join(parts[:2])


def check(root):
    graph, rooms = {}, {}
    for cmake in sorted(root.glob("libs/*/CMakeLists.txt")) + sorted(root.glob("services/*/CMakeLists.txt")) + sorted(root.glob("cli/CMakeLists.txt")):
        found = declared(cmake.read_text())
        graph.update(found)
        rooms[room_of(str(cmake.relative_to(root)))] = set(found)
    problems = []
    for source in sorted(list(root.glob("libs/**/*.[ch]*")) + list(root.glob("services/**/*.[ch]*")) + list(root.glob("cli/*.[ch]*"))):
        path = str(source.relative_to(root))
        here = room_of(path)
        allowed = {here}
        for library in rooms.get(here, ()):
            allowed |= closure(library, graph)
        for included in INCLUDE.findall(source.read_text(errors="replace")):
            there = room_of(included)
            if there.startswith("services/") and there != here:
                problems.append(f"{path}: includes {included}; services meet in proto/ only")
            elif there not in allowed and not source.name.endswith("_test.cc"):
                problems.append(f"{path}: includes {included}, but {here} does not declare {there}")
    return problems, len(rooms)


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, deps in (("a", ""), ("b", "DEPS a")):
            (root / "libs" / name).mkdir(parents=True)
            (root / "libs" / name / "CMakeLists.txt").write_text(f"poststelle_library({name} SOURCES x.cc {deps})")
        (root / "libs/b/x.cc").write_text('#include "libs/a/x.h"\n')
        (root / "libs/a/x.cc").write_text('#include "libs/b/x.h"\n')
        problems, _ = check(root)
        assert problems == ["libs/a/x.cc: includes libs/b/x.h, but a does not declare b"], problems


if __name__ == "__main__":
    self_test()
    found, count = check(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
    print("\n".join(found) if found else f"{count} rooms include what they declare")
    sys.exit(1 if found or count == 0 else 0)
