#!/usr/bin/env python3
"""Writes docs/providers.md from services/config/providers.json; --check fails if it is not what it would write.

usage: providers_doc.py [--check] [ROOT]
"""
import json
import pathlib
import sys

HEAD = """# Mail providers

What Poststelle knows about {count} mail providers: `services/config/providers.json`, from which `tools/providers_doc.py` writes this
page. `poststelle mailbox suggest ADDRESS` and `SuggestSettings` use it: by the domain of the address, or by who receives the
domain's mail (MX). For any other domain its own SRV records count (RFC 6186, RFC 8314), and where there are none the servers are
guessed. The interval is the shortest between two polls that the provider asks for; a mailbox below it carries the warning
INTERVAL_BELOW_PROVIDER_MINIMUM. What a provider does not say itself is left open (–). A stored password goes along to another server
of the same provider when a counterpart is made, and to nobody else.

To add or mend one, edit the file; its form is `services/config/provider_table.proto`, and `config_test` checks it.

| provider | domains, or MX | receive | send | password | interval | connections | source |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""
PASSWORD = {"PASSWORD": "yes", "APP_PASSWORD": "one for programs", "NO_PASSWORD": "no"}
DEFAULT_PORTS = {("imap", "TLS"): 993, ("imap", "STARTTLS"): 143, ("smtp", "TLS"): 465, ("smtp", "STARTTLS"): 587}


def servers(entry, protocol):
    out = []
    for server in entry.get(protocol, []):
        encryption = server.get("encryption", "TLS")
        port = server.get("port", DEFAULT_PORTS[protocol, encryption])
        host = "the MX host" if server["host"] == "{mx}" else server["host"]
        out.append(f"{host}:{port} {encryption}")
    return "<br>".join(out) or "–"


def names(entry):
    domains = entry.get("domains", [])
    shown = domains[:4] + ([f"and {len(domains) - 4} more"] if len(domains) > 4 else [])
    return ", ".join(shown + [f"MX {end}" for end in entry.get("mxSuffixes", [])])


def sign_in(entry):
    text = PASSWORD[entry["signIn"]]
    sending = entry.get("outboundSignIn")
    return f"{text}; to send: {PASSWORD[sending]}" if sending else text


def interval(entry):
    seconds = int(entry.get("minFetchInterval", "0s").removesuffix("s"))
    return f"{seconds // 60} min" if seconds else "–"


def page(text):
    providers = json.loads(text)["providers"]
    lines = [HEAD.format(count=len(providers))]
    for entry in providers:
        lines.append("| " + " | ".join([entry["displayName"], names(entry), servers(entry, "imap"), servers(entry, "smtp"), sign_in(entry),
                                        interval(entry), str(entry.get("maxConnections", "–")),
                                        f"[page]({entry['sourceUrl']})"]) + " |\n")
    lines.append("\n## What people have to know\n\n")
    for entry in providers:
        for note in entry.get("notes", []):
            lines.append(f"- **{entry['displayName']}**: {note['en']}\n  *{note['de']}*\n")
    return "".join(lines)


def main():
    check = "--check" in sys.argv
    roots = [argument for argument in sys.argv[1:] if argument != "--check"]
    root = pathlib.Path(roots[0] if roots else ".")
    wanted = page((root / "services/config/providers.json").read_text())
    target = root / "docs/providers.md"
    if not check:
        target.write_text(wanted)
    elif not target.exists() or target.read_text() != wanted:
        sys.exit("docs/providers.md is not what services/config/providers.json says: run tools/providers_doc.py")


if __name__ == "__main__":
    main()
