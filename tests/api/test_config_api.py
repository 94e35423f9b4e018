"""The config service's API from a foreign language: errors name every bad field, secrets stay inside."""
import os

import grpc
import pytest

from stack import Stack, mailbox_pb2, mailbox_service_pb2, mailbox_service_pb2_grpc
from google.rpc import error_details_pb2, status_pb2  # after stack, which knows where the generated protos are
from poststelle.config.v1 import credential_service_pb2, credential_service_pb2_grpc


@pytest.fixture(scope="module")
def stack():
    with Stack(mail=False) as s:
        yield s


def mailbox(**changes):
    m = mailbox_pb2.Mailbox(display_name=changes.get("name", "Support"), direction=1, address="support@example.org", enabled=True)
    m.connection.protocol = 1
    m.connection.host = changes.get("host", "imap.example.org")
    m.password_authentication.password = "top-secret-word"
    return m


def details(error, kind):
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    for any_detail in status.details:
        out = kind()
        if any_detail.Unpack(out):
            return out
    raise AssertionError(f"no {kind.__name__}")


def test_every_bad_field_is_named(stack):
    with stack.channel(stack.config) as channel:
        stub = mailbox_service_pb2_grpc.MailboxServiceStub(channel)
        bad = mailbox(name="a\nb", host="")
        bad.connection.port = 99999
        bad.import_options.max_age_days = 5000
        with pytest.raises(grpc.RpcError) as refused:
            stub.CreateMailbox(mailbox_service_pb2.CreateMailboxRequest(mailbox=bad, mailbox_id="X"))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        fields = [v.field for v in details(refused.value, error_details_pb2.BadRequest).field_violations]
        assert fields == ["mailbox.display_name", "mailbox.connection.host", "mailbox.connection.port",
                          "mailbox.import_options.max_age_days", "mailbox_id"]
        assert details(refused.value, error_details_pb2.ErrorInfo).domain == "poststelle"


def test_life_of_a_mailbox(stack):
    with stack.channel(stack.config) as channel:
        stub = mailbox_service_pb2_grpc.MailboxServiceStub(channel)
        create = mailbox_service_pb2.CreateMailboxRequest(mailbox=mailbox(name="Büro"), mailbox_id="office", request_id="r1")
        made = stub.CreateMailbox(create).mailbox
        assert stub.CreateMailbox(create).mailbox == made
        assert made.password_authentication.password_set and not made.password_authentication.password
        with pytest.raises(grpc.RpcError) as taken:
            stub.CreateMailbox(mailbox_service_pb2.CreateMailboxRequest(mailbox=mailbox(name="BÜRO")))
        assert taken.value.code() == grpc.StatusCode.ALREADY_EXISTS
        update = mailbox_service_pb2.UpdateMailboxRequest()
        update.mailbox.name = made.name
        update.mailbox.etag = made.etag
        update.mailbox.connection.host = "mail.example.org"
        update.mailbox.password_authentication.password = "top-secret-word"
        update.update_mask.paths.extend(["connection.host", "password_authentication.password"])
        changed = stub.UpdateMailbox(update).mailbox
        assert changed.connection_generation == made.connection_generation + 1
        assert changed.password_authentication.password_set
        with pytest.raises(grpc.RpcError) as late:
            stub.UpdateMailbox(update)
        assert late.value.code() == grpc.StatusCode.ABORTED
        assert details(late.value, error_details_pb2.ErrorInfo).reason == "ETAG_MISMATCH"
        for name in ("config.db", "config.db-wal", "config.log"):
            path = os.path.join(stack.folder, name)
            if os.path.exists(path):
                with open(path, "rb") as f:
                    assert b"top-secret-word" not in f.read()
        stub.DeleteMailbox(mailbox_service_pb2.DeleteMailboxRequest(name=made.name))
        with pytest.raises(grpc.RpcError) as gone:
            stub.GetMailbox(mailbox_service_pb2.GetMailboxRequest(name=made.name))
        assert gone.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_stored_password_is_not_sent_elsewhere(stack):
    with stack.channel(stack.config) as channel:
        stub = mailbox_service_pb2_grpc.MailboxServiceStub(channel)
        made = stub.CreateMailbox(mailbox_service_pb2.CreateMailboxRequest(mailbox=mailbox(name="Keeps"))).mailbox

        def update(*paths, password="", **connection):
            request = mailbox_service_pb2.UpdateMailboxRequest()
            request.mailbox.name = made.name
            for field, value in connection.items():
                setattr(request.mailbox.connection, field, value)
            request.mailbox.password_authentication.password = password
            request.update_mask.paths.extend(paths or [f"connection.{field}" for field in connection])
            return stub.UpdateMailbox(request).mailbox

        def refused(*paths, **connection):
            with pytest.raises(grpc.RpcError) as error:
                update(*paths, **connection)
            assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert details(error.value, error_details_pb2.ErrorInfo).reason == "INVALID_FIELDS"
            violations = details(error.value, error_details_pb2.BadRequest).field_violations
            assert [v.field for v in violations] == ["mailbox.password_authentication.password"]
            assert "give the password again" in violations[0].description

        starttls, none, tls = 2, 1, 3
        refused(host="thief.example.net")
        refused(encryption=none)
        refused("connection", host="thief.example.net", protocol=1)
        with pytest.raises(grpc.RpcError):
            everything = mailbox(name="Keeps", host="thief.example.net")
            everything.name = made.name
            everything.password_authentication.password = ""
            request = mailbox_service_pb2.UpdateMailboxRequest(mailbox=everything)
            request.update_mask.paths.append("*")
            stub.UpdateMailbox(request)
        assert stub.GetMailbox(mailbox_service_pb2.GetMailboxRequest(name=made.name)).mailbox == made
        assert update(port=1993).connection.port == 1993
        paths = ("connection.encryption", "password_authentication.password")
        assert update(*paths, encryption=starttls, password="top-secret-word").connection.encryption == starttls
        assert update(encryption=tls).connection.encryption == tls
        assert update("connection.host", "password_authentication.password", host="mail.example.org",
                      password="top-secret-word").connection.host == "mail.example.org"
    # The command line says what is missing and how to give it.
    mailbox_id = made.name.split("/")[1]
    done = stack.cli("mailbox", "update", mailbox_id, "--host", "thief.example.net", check=False)
    assert done.returncode == 2 and b"give the password again" in done.stderr
    assert b"POSTSTELLE_MAILBOX_PASSWORD" in done.stderr
    done = stack.cli("mailbox", "update", mailbox_id, "--host", "imap2.example.org", password="top-secret-word")
    assert b"imap2.example.org" in done.stdout


@pytest.mark.parametrize("flags", (("--enabled", "--disabled"), ("--also-read", "--unread-only"),
                                   ("--unlimited-age", "--max-age-days", "3")))
def test_the_command_line_refuses_contradictions(stack, flags):
    done = stack.cli("mailbox", "update", "whatever", *flags, check=False)
    assert done.returncode == 2 and b"excludes" in done.stderr


def rotate_key(path, keep_old):
    with open(path) as f:
        old = f.read()
    with open(path, "w") as f:
        f.write("key rotated " + "5" * 64 + "\n" + (old if keep_old else ""))
    return old


def test_a_repeated_create_is_recognised_after_a_key_rotation(stack):
    create = mailbox_service_pb2.CreateMailboxRequest(mailbox=mailbox(name="Again"), request_id="again-1")
    with stack.channel(stack.config) as channel:
        made = mailbox_service_pb2_grpc.MailboxServiceStub(channel).CreateMailbox(create).mailbox
    key_file = os.path.join(stack.folder, "config.key")
    old = rotate_key(key_file, keep_old=True)
    assert stack.config.stop() == 0
    stack.config.start()
    try:
        with stack.channel(stack.config) as channel:
            stub = mailbox_service_pb2_grpc.MailboxServiceStub(channel)
            assert stub.CreateMailbox(create).mailbox == made
            create.mailbox.password_authentication.password = "another"
            with pytest.raises(grpc.RpcError) as reused:
                stub.CreateMailbox(create)
            assert details(reused.value, error_details_pb2.ErrorInfo).reason == "REQUEST_ID_REUSED"
    finally:
        with open(key_file, "w") as f:
            f.write(old)
        assert stack.config.stop() == 0
        stack.config.start()


def test_watch_resumes_and_survives_a_restart(stack):
    with stack.channel(stack.config) as channel:
        stub = mailbox_service_pb2_grpc.MailboxServiceStub(channel)
        watch = stub.WatchMailboxes(mailbox_service_pb2.WatchMailboxesRequest())
        token = next(r.resume_token for r in watch if r.HasField("synced"))
        watch.cancel()
        made = stub.CreateMailbox(mailbox_service_pb2.CreateMailboxRequest(mailbox=mailbox(name="Watched"))).mailbox
        stub.DeleteMailbox(mailbox_service_pb2.DeleteMailboxRequest(name=made.name))
    assert stack.config.stop() == 0
    stack.config.start()
    with stack.channel(stack.config) as channel:
        stub = mailbox_service_pb2_grpc.MailboxServiceStub(channel)
        watch = stub.WatchMailboxes(mailbox_service_pb2.WatchMailboxesRequest(resume_token=token))
        steps = []
        for response in watch:
            if response.HasField("synced"):
                break
            steps.append(response.WhichOneof("change"))
        watch.cancel()
        assert steps == ["deleted", "deleted"]
        with pytest.raises(grpc.RpcError) as old:
            next(iter(stub.WatchMailboxes(mailbox_service_pb2.WatchMailboxesRequest(resume_token="other.1"))))
        assert old.value.code() == grpc.StatusCode.OUT_OF_RANGE


def test_credentials_are_for_services_only(stack):
    with stack.channel(stack.config) as channel:
        stub = mailbox_service_pb2_grpc.MailboxServiceStub(channel)
        made = stub.CreateMailbox(mailbox_service_pb2.CreateMailboxRequest(mailbox=mailbox(name="Secret"))).mailbox
        credentials = credential_service_pb2_grpc.CredentialServiceStub(channel)
        request = credential_service_pb2.GetCredentialsRequest(name=made.name)
        # Without a token the tests are admins here, and not even those may.
        for metadata, code in (((), grpc.StatusCode.PERMISSION_DENIED),
                               ((("authorization", "Bearer wrong"),), grpc.StatusCode.UNAUTHENTICATED)):
            with pytest.raises(grpc.RpcError) as refused:
                credentials.GetCredentials(request, metadata=metadata)
            assert refused.value.code() == code
        token = stack.identities.tokens["service"]
        answer = credentials.GetCredentials(request, metadata=(("authorization", f"Bearer {token}"),))
        assert answer.password == "top-secret-word" and answer.login_name == "support@example.org"
