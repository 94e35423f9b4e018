"""Mailboxes and catalogues as YAML: applied twice changes nothing, what is exported is a fixed point, mistakes are named."""
import os
import subprocess

import pytest

from stack import Stack, binary

MAILBOXES = 1000


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def stack(request):
    with Stack(mail=False, database=request.param) as s:
        yield s


def run(stack, *arguments, text=None, **environment):
    env = {**os.environ, **stack.environment_of_config(), **environment}
    return subprocess.run([binary("poststelle"), *arguments], env=env, input=text, capture_output=True, text=True, timeout=300)


def document(i):
    return f"""---
kind: Mailbox
name: mailboxes/box{i:04}
displayName: Box {i:04}
direction: inbound
address: box{i}@example.org
connection:
  protocol: imap
  host: imap.example.org
passwordAuthentication:
  password: {{env: SECRET}}
importOptions:
  fetchInterval: 10m
  folders: [INBOX, "Büro: {i}"]
  newTicketStatus: ticketStatuses/applied
  ticketLabels: [labels/applied]
  replyVia: mailboxes/answers
labels:
  team: "{i % 7}"
enabled: {"true" if i % 2 else "false"}
"""


def everything():
    return "".join(document(i) for i in range(MAILBOXES)) + """---
kind: Mailbox
name: mailboxes/answers
displayName: Answers
direction: outbound
address: answers@example.org
counterpart: mailboxes/box0000
connection: {protocol: smtp, host: smtp.example.org, encryption: starttls}
passwordAuthentication: {password: {env: SECRET}}
enabled: true
---
kind: TicketStatus
name: ticketStatuses/applied
germanName: Angewandt
englishName: Applied
color: "#112233"
---
kind: Label
name: labels/applied
germanName: Angewandt
"""


def test_applied_twice_exported_and_applied_again(stack, tmp_path):
    path = str(tmp_path / "all.yaml")
    with open(path, "w") as f:
        f.write(everything())
    before = run(stack, "diff", "-f", path, SECRET="geheim-eins")
    assert before.returncode == 7 and "+ name: mailboxes/box0999" in before.stdout, before.stderr
    first = run(stack, "apply", "-f", path, SECRET="geheim-eins")
    assert first.returncode == 0 and f"{MAILBOXES + 3} created, 0 changed, 0 unchanged" in first.stderr, first.stderr[-2000:]
    second = run(stack, "apply", "-f", path, SECRET="geheim-eins")
    assert second.returncode == 0 and f"0 created, 0 changed, {MAILBOXES + 3} unchanged" in second.stderr
    diff = run(stack, "diff", "-f", path, SECRET="geheim-eins")
    assert (diff.returncode, diff.stdout) == (0, "")
    exported = run(stack, "export")
    assert exported.returncode == 0 and "geheim" not in exported.stdout and "counterpart: mailboxes/box0000" in exported.stdout
    assert "password: {env: POSTSTELLE_PASSWORD_BOX0001}" in exported.stdout
    # Without the variables the stored passwords stay.
    again = run(stack, "apply", "-f", "-", text=exported.stdout)
    assert again.returncode == 0 and " 0 changed" in again.stderr and "0 created" in again.stderr, again.stderr[-2000:]
    assert run(stack, "export").stdout == exported.stdout
    # Another password is a change, and the only one.
    other = run(stack, "diff", "-f", path, SECRET="geheim-zwei")
    assert other.returncode == 7 and other.stdout.count("+ another password") == MAILBOXES + 1 and "geheim" not in other.stdout


def test_what_changes_is_shown_and_done(stack):
    box = document(5000)
    assert run(stack, "apply", "-f", "-", text=box.split("  newTicketStatus")[0] + "enabled: true\n", SECRET="x1").returncode == 0
    changed = box.split("  newTicketStatus")[0].replace("10m", "20m") + "enabled: true\n"
    diff = run(stack, "diff", "-f", "-", text=changed, SECRET="x1")
    assert diff.returncode == 7
    assert [line for line in diff.stdout.splitlines() if line[0] in "+-"] == ["-   fetchInterval: 10m", "+   fetchInterval: 20m"]
    assert "changed mailboxes/box5000" in run(stack, "apply", "-f", "-", text=changed, SECRET="x1").stdout


@pytest.mark.parametrize("text,message", [
    ("kind: Mailbox\nname: mailboxes/nobody\ncolour: red\n", "standard input:3:1: unknown key \"colour\""),
    ("kind: Mailbox\nname: [a]\n", "standard input:2:7: name must be a single value"),
    ("kind: Mailbox\nname: mailboxes/newbox\npasswordAuthentication: {password: {env: NOT_SET_ANYWHERE}}\n",
     "the environment has no variable NOT_SET_ANYWHERE"),
    ("kind: Mailbox\ndisplayName: x\n", "the key name is missing"),
    ("kind: Mailbox\n\tname: x\n", "standard input:2:"),
    ("kind: Mailbox\nname: mailboxes/newbox\ndirection: inbound\n", "mailbox.display_name"),
])
def test_mistakes_are_named(stack, text, message):
    done = run(stack, "apply", "-f", "-", text=text)
    assert done.returncode == 2 and message in done.stderr, done.stderr


def test_completion_knows_commands_options_and_mailboxes(stack):
    run(stack, "apply", "-f", "-", text=document(7000).split("  newTicketStatus")[0], SECRET="x")

    def words(*typed):
        return run(stack, "completion", "words", "--", *typed).stdout.split()

    assert "mailbox" in words("") and words("mail") == ["mailbox"]
    assert {"create", "copy", "counterpart", "list"} <= set(words("mailbox", ""))
    assert "--reply-via" in words("mailbox", "create", "--rep")
    assert words("mailbox", "get", "box700") == ["box7000"]
    script = run(stack, "completion", "bash").stdout
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
