"""The overview of all mailboxes (SPEC A1): what config knows, joined with what the fetcher says."""
from stack import Stack
from servers import wait_until


def row(stack, *arguments):
    lines = stack.cli("mailbox", "list", *arguments).stdout.decode().splitlines()
    return lines[0].split("  "), {line.split()[0]: line for line in lines[1:]}


def test_the_overview_joins_definition_and_state():
    with Stack().start() as stack:
        good = stack.create_mailbox(name="Works")
        bad = stack.create_mailbox(account="sales@localhost", name="Fails", password="wrong")
        stack.cli("mailbox", "create", "--outbound", "--id", "sends", "--name", "Sends", "--address", "x@example.org", "--host",
                  "smtp.example.org", "--label", "team=a", password="x")
        wait_until(lambda: "ok" in row(stack)[1][good] and "failing" in row(stack)[1][bad], 60, "both states to be shown")
        header, rows = row(stack)
        assert [cell.strip() for cell in header if cell] == ["NAME", "DISPLAY NAME", "DIRECTION", "PROTOCOL", "ADDRESS", "SERVER",
                                                             "ENABLED", "STATE", "LAST SUCCESS", "NEXT RUN", "REASON"]
        assert "inbound" in rows[good] and "imap" in rows[good] and "support@localhost" in rows[good]
        assert "AUTHENTICATION" in rows[bad]
        assert "outbound" in rows["mailboxes/sends"] and "smtp.example.org:465" in rows["mailboxes/sends"]
        assert set(row(stack, "--direction", "outbound")[1]) == {"mailboxes/sends"}
        assert set(row(stack, "-l", "team=a")[1]) == {"mailboxes/sends"}
        assert set(row(stack, "--text", "FAIL")[1]) == {bad}
        stack.fetcher.stop()
        _, alone = row(stack)
        assert set(alone) == {good, bad, "mailboxes/sends"}
