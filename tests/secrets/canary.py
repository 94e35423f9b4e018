"""Looks for one secret in whatever a system leaves behind, in every spelling that programs like to use."""
import base64
import glob
import os
import urllib.parse


def spellings(secret):
    """{spelling: bytes that contain it only if the secret is there}. `secret` is text."""
    raw = secret.encode()
    out = {"plain": raw, "latin-1": secret.encode("latin-1"), "utf-16le": secret.encode("utf-16-le"),
           "utf-16be": secret.encode("utf-16-be"), "hex": raw.hex().encode(), "HEX": raw.hex().upper().encode(),
           "hex, spaced": raw.hex(" ").encode(), "\\x": "".join(f"\\x{b:02x}" for b in raw).encode(),
           "octal": "".join(f"\\{b:03o}" for b in raw).encode(), "reversed": raw[::-1],
           "url": urllib.parse.quote(secret, safe="").encode(), "url+": urllib.parse.quote_plus(secret).encode(),
           "url, all": "".join(f"%{b:02X}" for b in raw).encode(), "url, all, lower": "".join(f"%{b:02x}" for b in raw).encode(),
           "json": secret.encode("unicode_escape"), "quoted": raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"')}
    # Base64 of a text in which the secret begins at any of the three places in a group; the edges depend on neighbours.
    for shift in range(3):
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            text = encode(b"\0" * shift + raw).rstrip(b"=")
            out[f"{name}+{shift}"] = text[(0, 2, 3)[shift]:len(text) - 1]
    return out


def processes_below(pid):
    out = [pid]
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        with open(path) as f:
            for child in f.read().split():
                out += processes_below(int(child))
    return out


class Searcher:
    """Finds `secret`, or its `core`: a part of letters and digits that no escaping changes."""

    def __init__(self, secret, core):
        assert core in secret and core.isalnum()
        found = {f"{name} of the core": needle for name, needle in spellings(core).items()}
        found.update(spellings(secret))
        self.needles = {needle: name for name, needle in found.items()}
        self.bytes = 0
        self.places = 0

    def search(self, data):
        """The spellings that are in `data`."""
        if isinstance(data, str):
            data = data.encode(errors="surrogateescape")
        self.bytes += len(data)
        self.places += 1
        return sorted(name for needle, name in self.needles.items() if needle in data)

    def search_tree(self, folder, skip=()):
        """{path: spellings} over every file below `folder`, read as raw bytes."""
        out = {}
        for base, folders, files in os.walk(folder):
            folders[:] = [f for f in folders if os.path.join(base, f) not in skip]
            for name in files:
                path = os.path.join(base, name)
                if os.path.islink(path) or not os.path.isfile(path):
                    continue
                try:
                    with open(path, "rb") as f:
                        found = self.search(f.read())
                except FileNotFoundError:
                    continue  # a server removed it meanwhile
                if found:
                    out[path] = found
        return out
