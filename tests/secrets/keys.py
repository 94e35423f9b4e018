"""Calls that the tests of this folder share."""
import os
import subprocess

import grpc

from stack import binary, mailbox_pb2, mailbox_service_pb2, mailbox_service_pb2_grpc
from google.rpc import error_details_pb2, status_pb2  # after stack, which knows where the generated protos are
from poststelle.config.v1 import credential_service_pb2, credential_service_pb2_grpc


def details(error, kind):
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    for any_detail in status.details:
        out = kind()
        if any_detail.Unpack(out):
            return out
    raise AssertionError(f"no {kind.__name__}")


def reason(error):
    return details(error, error_details_pb2.ErrorInfo).reason


def mailbox(name, password, host="imap.example.org"):
    m = mailbox_pb2.Mailbox(display_name=name, direction=1, address="support@example.org")
    m.connection.protocol = 1
    m.connection.host = host
    m.password_authentication.password = password
    return m


class Config:
    """One config process, over gRPC."""

    def __init__(self, stack, service=None):
        self.service = service or stack.config
        self.channel = grpc.insecure_channel(self.service.address)
        self.mailboxes = mailbox_service_pb2_grpc.MailboxServiceStub(self.channel)
        self.credentials = credential_service_pb2_grpc.CredentialServiceStub(self.channel)
        self.metadata = (("authorization", f"Bearer {stack.identities.tokens['service']}"),)

    def create(self, mailbox_id, password, request_id="", **kwargs):
        request = mailbox_service_pb2.CreateMailboxRequest(mailbox=mailbox(f"Box {mailbox_id}", password, **kwargs),
                                                           mailbox_id=mailbox_id, request_id=request_id)
        return self.mailboxes.CreateMailbox(request, timeout=60).mailbox

    def update(self, mailbox_id, password=None, **fields):
        request = mailbox_service_pb2.UpdateMailboxRequest()
        request.mailbox.name = f"mailboxes/{mailbox_id}"
        for field, value in fields.items():
            setattr(request.mailbox, field, value)
            request.update_mask.paths.append(field)
        if password is not None:
            request.mailbox.password_authentication.password = password
            request.update_mask.paths.append("password_authentication.password")
        return self.mailboxes.UpdateMailbox(request, timeout=60).mailbox

    def password(self, mailbox_id):
        request = credential_service_pb2.GetCredentialsRequest(name=f"mailboxes/{mailbox_id}")
        return self.credentials.GetCredentials(request, metadata=self.metadata, timeout=60).password


def command(stack, *words, key_file=None, program=None):
    """The argv of `poststelle-config keys …` on the stack's database."""
    arguments = stack.config.arguments
    return [program or binary("poststelle-config"), "keys", *words, "--database", arguments[arguments.index("--database") + 1],
            "--key-file", key_file or os.path.join(stack.folder, "config.key")]


def keys(stack, *words, code=0, **kwargs):
    """What it prints."""
    done = subprocess.run(command(stack, *words, **kwargs), capture_output=True, text=True, timeout=120)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def usage(stack, **kwargs):
    """{key: (passwords, requests, state)} in the order of `keys list`."""
    lines = [line.split("\t") for line in keys(stack, "list", **kwargs).splitlines()[1:]]
    return {line[0]: (int(line[1]), int(line[2]), line[3]) for line in lines}
