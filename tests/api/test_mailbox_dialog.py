"""What a person does in the dialog "Postfächer verwalten", through gRPC, on either database."""
import grpc
import pytest

from stack import Stack, mailbox_pb2, mailbox_service_pb2 as m, mailbox_service_pb2_grpc
from google.rpc import error_details_pb2, status_pb2
from poststelle.config.v1 import label_service_pb2 as l, label_service_pb2_grpc
from poststelle.config.v1 import ticket_status_service_pb2 as t, ticket_status_service_pb2_grpc

INBOUND, OUTBOUND = 1, 2
IMAP, SMTP = 1, 2
NONE, STARTTLS, TLS = 1, 2, 3


class Api:
    def __init__(self, stack):
        channel = stack.channel(stack.config)
        self.mailboxes = mailbox_service_pb2_grpc.MailboxServiceStub(channel)
        self.statuses = ticket_status_service_pb2_grpc.TicketStatusServiceStub(channel)
        self.labels = label_service_pb2_grpc.LabelServiceStub(channel)

    def create(self, name, direction=INBOUND, **request):
        return self.mailboxes.CreateMailbox(m.CreateMailboxRequest(mailbox=mailbox(name, direction), **request)).mailbox

    def update(self, name, paths, change, **request):
        update = m.UpdateMailboxRequest(**request)
        update.mailbox.name = name
        change(update.mailbox)
        update.update_mask.paths.extend(paths)
        return self.mailboxes.UpdateMailbox(update).mailbox

    def get(self, name):
        return self.mailboxes.GetMailbox(m.GetMailboxRequest(name=name)).mailbox

    def list(self, **request):
        names, token = [], ""
        while True:
            page = self.mailboxes.ListMailboxes(m.ListMailboxesRequest(page_token=token, **request))
            names += [box.display_name for box in page.mailboxes]
            token = page.next_page_token
            if not token:
                return names


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def api(request):
    with Stack(mail=False, database=request.param) as stack:
        yield Api(stack)


def mailbox(name, direction=INBOUND, host="mail.example.org"):
    box = mailbox_pb2.Mailbox(display_name=name, direction=direction, address=f"{name.lower().replace(' ', '-')}@example.org")
    box.connection.protocol = IMAP if direction == INBOUND else SMTP
    box.connection.host = host
    box.password_authentication.password = "top-secret-word"
    return box


def refused(code, reason, call, fields=None):
    with pytest.raises(grpc.RpcError) as error:
        call()
    status = status_pb2.Status.FromString(dict(error.value.trailing_metadata())["grpc-status-details-bin"])
    infos = [d for d in status.details if d.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    assert len(infos) == 1
    info = error_details_pb2.ErrorInfo()
    infos[0].Unpack(info)
    bad = error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(bad)
    assert (error.value.code(), info.reason) == (code, reason), error.value.details()
    if fields is not None:
        assert [v.field for v in bad.field_violations] == fields
    return info


def test_the_direction_decides_what_there_is_and_never_changes(api):
    sends = api.create("Sends", OUTBOUND)
    assert (sends.connection.port, sends.connection.encryption) == (465, TLS)
    assert not sends.HasField("import_options")
    refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS",
            lambda: api.update(sends.name, ["import_options.max_age_days"],
                               lambda box: setattr(box.import_options, "max_age_days", 3)), ["mailbox.import_options"])
    refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS",
            lambda: api.update(sends.name, ["direction"], lambda box: setattr(box, "direction", INBOUND)), ["mailbox.direction"])
    wrong = mailbox("Wrong", OUTBOUND)
    wrong.connection.protocol = IMAP
    refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS",
            lambda: api.mailboxes.CreateMailbox(m.CreateMailboxRequest(mailbox=wrong)), ["mailbox.connection.protocol"])


def test_a_usual_port_follows_the_encryption(api):
    box = api.create("Ports")

    def encrypt(value, *paths, port=0):
        def change(update):
            update.connection.encryption = value
            update.connection.port = port
            update.password_authentication.password = "top-secret-word"
        return api.update(box.name, ["connection.encryption", "password_authentication.password", *paths], change).connection.port

    assert box.connection.port == 993
    assert encrypt(STARTTLS) == 143
    assert encrypt(TLS) == 993
    assert encrypt(STARTTLS, "connection.port", port=1143) == 1143
    assert encrypt(TLS) == 1143  # was no usual one: stays


def test_trust_is_authorities_or_one_key(api):
    box = mailbox("Pinned")
    box.connection.pinned_key_sha256 = "AB" * 32
    made = api.mailboxes.CreateMailbox(m.CreateMailboxRequest(mailbox=box)).mailbox
    assert made.connection.pinned_key_sha256 == "ab" * 32
    # Another key is somebody else: the password has to be given again.
    refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS",
            lambda: api.update(made.name, ["connection.pinned_key_sha256"],
                               lambda u: setattr(u.connection, "pinned_key_sha256", "cd" * 32)),
            ["mailbox.password_authentication.password"])
    box.display_name = "Pinned twice"
    for pin, encryption in (("xyz", TLS), ("ab" * 32, NONE)):
        box.connection.pinned_key_sha256 = pin
        box.connection.encryption = encryption
        refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS",
                lambda: api.mailboxes.CreateMailbox(m.CreateMailboxRequest(mailbox=box)), ["mailbox.connection.pinned_key_sha256"])


def test_folders_and_what_happens_after_import(api):
    box = mailbox("Folders")
    box.import_options.folders.extend(["inbox", "Projekte/Ä"])
    box.import_options.after_import.action = mailbox_pb2.AfterImport.ACTION_MOVE
    box.import_options.after_import.target_folder = "Done"
    made = api.mailboxes.CreateMailbox(m.CreateMailboxRequest(mailbox=box)).mailbox
    assert list(made.import_options.folders) == ["INBOX", "Projekte/Ä"]
    for folders, action, target, field in ((["A", "A"], 1, "", "folders"), (["INBOX", "Inbox"], 1, "", "folders"),
                                           (["A\n"], 1, "", "folders"), (["A"], 3, "A", "after_import.target_folder"),
                                           (["INBOX"], 3, "inbox", "after_import.target_folder"),
                                           (["A"], 3, "", "after_import.target_folder"), (["A"], 2, "B", "after_import.target_folder"),
                                           ([f"F{i}" for i in range(21)], 1, "", "folders")):
        box.display_name = "Refused"
        del box.import_options.folders[:]
        box.import_options.folders.extend(folders)
        box.import_options.after_import.action = action
        box.import_options.after_import.target_folder = target
        refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS",
                lambda: api.mailboxes.CreateMailbox(m.CreateMailboxRequest(mailbox=box)), [f"mailbox.import_options.{field}"])


def test_a_starting_set_and_the_life_of_an_entry(api):
    names = [e.german_name for e in api.statuses.ListTicketStatuses(t.ListTicketStatusesRequest()).ticket_statuses]
    assert "Offen" in names and names == sorted(names, key=str.casefold)
    assert [e.name for e in api.statuses.ListTicketStatuses(t.ListTicketStatusesRequest(text="PROGRESS")).ticket_statuses] == [
        "ticketStatuses/in-progress"]
    assert [e.english_name for e in api.labels.ListLabels(l.ListLabelsRequest(text="störung")).labels] == ["Incident"]
    create = l.CreateLabelRequest(label_id="vip", request_id="label-1", label=l.Label(german_name="Wichtig", color="#AABBCC"))
    made = api.labels.CreateLabel(create).label
    assert (made.english_name, made.color) == ("Wichtig", "#aabbcc")
    assert api.labels.CreateLabel(create).label == made
    create.label.german_name = "Anders"
    refused(grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED", lambda: api.labels.CreateLabel(create))
    refused(grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN",
            lambda: api.labels.CreateLabel(l.CreateLabelRequest(label=l.Label(german_name="WICHTIG"))))
    refused(grpc.StatusCode.ALREADY_EXISTS, "LABEL_EXISTS",
            lambda: api.labels.CreateLabel(l.CreateLabelRequest(label_id="vip", label=l.Label(german_name="Neu"))))
    refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS",
            lambda: api.labels.CreateLabel(l.CreateLabelRequest(label_id="X", label=l.Label(german_name="", color="red"))),
            ["label.german_name", "label.color", "label_id"])
    update = l.UpdateLabelRequest(label=l.Label(name=made.name, english_name="Important", etag=made.etag))
    update.update_mask.paths.append("english_name")
    renamed = api.labels.UpdateLabel(update).label
    assert (renamed.german_name, renamed.english_name) == ("Wichtig", "Important")
    refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH", lambda: api.labels.UpdateLabel(update))
    api.labels.DeleteLabel(l.DeleteLabelRequest(name=made.name, validate_only=True))
    assert api.labels.GetLabel(l.GetLabelRequest(name=made.name)).label == renamed
    api.labels.DeleteLabel(l.DeleteLabelRequest(name=made.name))
    refused(grpc.StatusCode.NOT_FOUND, "LABEL_NOT_FOUND", lambda: api.labels.GetLabel(l.GetLabelRequest(name=made.name)))


def test_what_is_in_use_does_not_vanish(api):
    sends = api.create("Answers", OUTBOUND)
    label = api.labels.CreateLabel(l.CreateLabelRequest(label_id="used", label=l.Label(german_name="Benutzt"))).label
    box = mailbox("Uses")
    box.import_options.reply_via = sends.name
    box.import_options.new_ticket_status = "ticketStatuses/new"
    box.import_options.reply_ticket_status = "ticketStatuses/open"
    box.import_options.ticket_labels.extend([label.name, "labels/order"])
    uses = api.mailboxes.CreateMailbox(m.CreateMailboxRequest(mailbox=box)).mailbox
    box.display_name = "Refers to nothing"
    box.import_options.reply_via = uses.name
    box.import_options.reply_ticket_status = "ticketStatuses/none"
    box.import_options.ticket_labels.append("labels/nothing")
    refused(grpc.StatusCode.INVALID_ARGUMENT, "REFERENCE_NOT_FOUND",
            lambda: api.mailboxes.CreateMailbox(m.CreateMailboxRequest(mailbox=box, validate_only=True)),
            ["mailbox.import_options.reply_via", "mailbox.import_options.reply_ticket_status",
             "mailbox.import_options.ticket_labels"])
    delete = m.DeleteMailboxRequest(name=sends.name)
    info = refused(grpc.StatusCode.FAILED_PRECONDITION, "MAILBOX_IN_USE", lambda: api.mailboxes.DeleteMailbox(delete))
    assert info.metadata["users"] == uses.name
    info = refused(grpc.StatusCode.FAILED_PRECONDITION, "LABEL_IN_USE",
                   lambda: api.labels.DeleteLabel(l.DeleteLabelRequest(name=label.name)))
    assert info.metadata["users"] == uses.name
    refused(grpc.StatusCode.FAILED_PRECONDITION, "TICKET_STATUS_IN_USE",
            lambda: api.statuses.DeleteTicketStatus(t.DeleteTicketStatusRequest(name="ticketStatuses/open")))
    refused(grpc.StatusCode.INVALID_ARGUMENT, "REFERENCE_NOT_FOUND",
            lambda: api.labels.DeleteLabel(l.DeleteLabelRequest(name=label.name, replacement="labels/nothing")), ["replacement"])
    # One that is there already is not there twice.
    api.labels.DeleteLabel(l.DeleteLabelRequest(name=label.name, replacement="labels/order"))
    api.statuses.DeleteTicketStatus(t.DeleteTicketStatusRequest(name="ticketStatuses/open", replacement="ticketStatuses/closed"))
    api.mailboxes.DeleteMailbox(m.DeleteMailboxRequest(name=sends.name, clear_references=True, validate_only=True))
    assert api.get(uses.name).import_options.reply_via == sends.name
    api.mailboxes.DeleteMailbox(m.DeleteMailboxRequest(name=sends.name, clear_references=True))
    options = api.get(uses.name).import_options
    assert (options.reply_via, options.reply_ticket_status, list(options.ticket_labels)) == (
        "", "ticketStatuses/closed", ["labels/order"])


def test_a_copy_and_a_counterpart(api):
    source = mailbox("Zentrale", host="imap.example.org")
    source.enabled = True
    source.labels["team"] = "front"
    source.import_options.max_age_days = 7
    source = api.mailboxes.CreateMailbox(m.CreateMailboxRequest(mailbox=source)).mailbox
    copy = m.DuplicateMailboxRequest(name=source.name, kind=m.DuplicateMailboxRequest.KIND_COPY, request_id="copy-1")
    made = api.mailboxes.DuplicateMailbox(copy).mailbox
    assert made.display_name == "Zentrale (copy)" and not made.enabled and made.import_options == source.import_options
    assert made.password_authentication.password_set and made.labels["team"] == "front" and made.name != source.name
    assert api.mailboxes.DuplicateMailbox(copy).mailbox == made
    twin = m.DuplicateMailboxRequest(name=source.name, kind=m.DuplicateMailboxRequest.KIND_COUNTERPART)
    before = api.list()
    twin.validate_only = True
    assert api.mailboxes.DuplicateMailbox(twin).mailbox.connection.host == "smtp.example.org"
    assert api.list() == before and not api.get(source.name).counterpart
    twin.validate_only = False
    made = api.mailboxes.DuplicateMailbox(twin).mailbox
    assert (made.direction, made.connection.protocol, made.connection.port, made.display_name) == (
        OUTBOUND, SMTP, 465, "Zentrale (outbound)")
    assert made.counterpart == source.name and api.get(source.name).counterpart == made.name
    # The password was not given for that host: the twin has none and can't be enabled without.
    assert not made.password_authentication.password_set
    refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS",
            lambda: api.update(made.name, ["enabled"], lambda u: setattr(u, "enabled", True)),
            ["mailbox.password_authentication.password"])
    refused(grpc.StatusCode.ALREADY_EXISTS, "COUNTERPART_EXISTS",
            lambda: api.mailboxes.DuplicateMailbox(m.DuplicateMailboxRequest(
                name=source.name, kind=m.DuplicateMailboxRequest.KIND_COUNTERPART, display_name="Once more")))
    same_host = m.DuplicateMailboxRequest(name=source.name, kind=m.DuplicateMailboxRequest.KIND_COPY, display_name="Elsewhere")
    same_host.overrides.address = "other@example.org"
    same_host.override_mask.paths.append("address")
    other = api.mailboxes.DuplicateMailbox(same_host).mailbox
    assert other.address == "other@example.org" and other.password_authentication.password_set
    same_host.override_mask.paths.append("direction")
    refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS", lambda: api.mailboxes.DuplicateMailbox(same_host),
            ["override_mask"])
    api.mailboxes.DeleteMailbox(m.DeleteMailboxRequest(name=made.name))
    assert not api.get(source.name).counterpart


def test_lists_select_and_order(api):
    for name, direction, team, enabled in (("Alpha", INBOUND, "a", True), ("Beta", INBOUND, "b", False), ("Gamma", OUTBOUND, "a", True)):
        box = mailbox("Sel " + name, direction)
        box.address = f"{name[::-1].lower()}@selected.example"
        box.enabled = enabled
        box.labels["sel/team"] = team
        api.mailboxes.CreateMailbox(m.CreateMailboxRequest(mailbox=box))
    mine = {"label_selectors": ["sel/team"]}
    assert api.list(**mine) == ["Sel Alpha", "Sel Beta", "Sel Gamma"]
    assert api.list(**mine, page_size=1) == ["Sel Alpha", "Sel Beta", "Sel Gamma"]
    assert api.list(**mine, page_size=2, order_by="display_name desc") == ["Sel Gamma", "Sel Beta", "Sel Alpha"]
    assert api.list(**mine, page_size=1, order_by="address") == ["Sel Alpha", "Sel Gamma", "Sel Beta"]
    assert api.list(**mine, page_size=1, order_by="create_time desc") == ["Sel Gamma", "Sel Beta", "Sel Alpha"]
    assert api.list(label_selectors=["sel/team=a"]) == ["Sel Alpha", "Sel Gamma"]
    assert api.list(**mine, direction=OUTBOUND) == ["Sel Gamma"]
    assert api.list(**mine, enabled=False) == ["Sel Beta"]
    assert api.list(text="SELECTED.ex") == ["Sel Alpha", "Sel Beta", "Sel Gamma"]
    assert api.list(text="%elected") == [] and api.list(text="sel_alpha") == []
    page = api.mailboxes.ListMailboxes(m.ListMailboxesRequest(page_size=1, **mine))
    refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS",
            lambda: api.mailboxes.ListMailboxes(m.ListMailboxesRequest(page_size=1, page_token=page.next_page_token)), ["page_token"])
    refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS",
            lambda: api.mailboxes.ListMailboxes(m.ListMailboxesRequest(order_by="etag", label_selectors=["=x"], text="x" * 101)),
            ["label_selectors", "text", "order_by"])


def test_everything_can_be_tried_before_it_is_done(api):
    taken = api.create("Tried")
    before = api.list()
    refused(grpc.StatusCode.ALREADY_EXISTS, "DISPLAY_NAME_TAKEN", lambda: api.create("TRIED", validate_only=True))
    assert api.create("Tried too", validate_only=True).connection.port == 993
    api.update(taken.name, ["display_name"], lambda u: setattr(u, "display_name", "Other"), validate_only=True)
    api.mailboxes.DeleteMailbox(m.DeleteMailboxRequest(name=taken.name, validate_only=True))
    assert api.list() == before and api.get(taken.name) == taken


def test_an_update_may_create_what_is_missing(api):
    update = m.UpdateMailboxRequest(mailbox=mailbox("Applied"), allow_missing=True)
    update.mailbox.name = "mailboxes/applied"
    made = api.mailboxes.UpdateMailbox(update).mailbox
    assert made.name == "mailboxes/applied" and made.connection_generation == 1
    update.allow_missing = False
    update.mailbox.name = "mailboxes/missing"
    refused(grpc.StatusCode.NOT_FOUND, "MAILBOX_NOT_FOUND", lambda: api.mailboxes.UpdateMailbox(update))
    status = t.UpdateTicketStatusRequest(allow_missing=True)
    status.ticket_status.name = "ticketStatuses/applied"
    status.ticket_status.german_name = "Angewandt"
    assert api.statuses.UpdateTicketStatus(status).ticket_status.german_name == "Angewandt"
