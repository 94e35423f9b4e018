"""Another key file: a state of the mailboxes that need the old one, and of nothing else."""
import os

import grpc
import pytest

from samples import mail
from servers import wait_until
from stack import ACCOUNTS, Feed, Stack
from keys import Config, keys, reason, usage


def subjects(feed):
    return [event.message.subject for event in feed.events]


@pytest.mark.parametrize("database", ("sqlite", "postgres"))
def test_a_secret_that_cant_be_opened_is_a_state_of_its_mailbox(database):
    with Stack(database=database).start() as stack:
        lost = stack.create_mailbox("support@localhost", name="Lost")
        stack.idle(lost, 1)
        assert stack.fetcher.stop() == 0
        assert stack.config.stop() == 0
        key_file = os.path.join(stack.folder, "config.key")
        os.rename(key_file, key_file + ".old")
        stack.config.start()  # makes another one
        stack.fetcher.start()
        wait_until(stack.serving, what="the fetcher")
        assert '"event":"keys.missing"' in stack.config.process.log()
        config = Config(stack)
        lost_id = lost.split("/")[1]
        with pytest.raises(grpc.RpcError) as unreadable:
            config.password(lost_id)
        assert unreadable.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert reason(unreadable.value) == "SECRET_UNREADABLE"
        assert stack.config.alive()

        # The fetcher says so, and what to do; the others go on.
        other = stack.create_mailbox("sales@localhost", name="Other")
        feed = Feed(stack.fetcher.address)
        stack.dovecot.deliver("sales@localhost", mail("To the other", "x"))
        wait_until(lambda: "To the other" in subjects(feed), what="the other mailbox's mail")
        status = wait_until(lambda: (s := stack.status(lost)).reason == "SECRET_UNREADABLE" and s, what="the state")
        assert "Enter the password again" in status.reason_text and "key file" in status.reason_text, status
        assert stack.status(other).reason == ""

        # Listed, and editable without its password.
        assert b"Lost" in stack.cli("mailbox", "list").stdout
        assert config.update(lost_id, display_name="Lost and found").password_authentication.password_set
        assert keys(stack, "rotate", code=3).count("can't be opened") == 1
        assert any("missing from" in state for _, _, state in usage(stack, code=3).values())

        # A new password mends it.
        config.update(lost_id, password=ACCOUNTS["support@localhost"])
        stack.dovecot.deliver("support@localhost", mail("To the mended one", "x"))
        wait_until(lambda: "To the mended one" in subjects(feed), 60, "the mended mailbox's mail")
        assert stack.status(lost).reason == ""
        feed.close()


def test_the_old_key_file_mends_it_too_and_is_seen_without_a_restart():
    with Stack(mail=False) as stack:
        config = Config(stack)
        config.create("box-1", "secret")
        key_file = os.path.join(stack.folder, "config.key")
        assert stack.config.stop() == 0
        os.rename(key_file, key_file + ".old")
        stack.config.start()
        config = Config(stack)
        with pytest.raises(grpc.RpcError):
            config.password("box-1")
        with open(key_file) as new, open(key_file + ".old") as old:
            both = new.read() + old.read()
        with open(key_file, "w") as f:
            f.write(both)
        assert config.password("box-1") == "secret"
