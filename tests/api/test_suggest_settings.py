"""Settings from an address: the table of providers, what the domain announces in DNS, and a guess where nobody can tell; and the
warnings that a mailbox's answers carry."""
import json

import grpc
import pytest

from name_server import MX, SRV, NameServer
from stack import Stack, mailbox_pb2, mailbox_service_pb2 as m, mailbox_service_pb2_grpc
from google.rpc import error_details_pb2, status_pb2

NONE, STARTTLS, TLS = 1, 2, 3
PROVIDER, DNS_SRV, DNS_MX, GUESS = 1, 2, 3, 4

RECORDS = {
    ("_imaps._tcp.announced.example", SRV): [(10, 1, 1993, "second.announced.example"), (10, 9, 993, "First.announced.example"),
                                             (5, 0, 993, "best.announced.example")],
    ("_imap._tcp.announced.example", SRV): [(0, 0, 143, "mail.announced.example")],
    ("_submissions._tcp.announced.example", SRV): [(0, 0, 465, "smtp.announced.example")],
    ("_submission._tcp.announced.example", SRV): [(0, 0, 0, ".")],
    ("announced.example", MX): [(10, "aspmx.l.google.com")],
    ("workspace.example", MX): [(20, "alt1.aspmx.l.google.com"), (5, "filter.example.com")],
    ("_imaps._tcp.xn--bcher-kva.example", SRV): [(0, 0, 993, "imap.xn--bcher-kva.example")],
    ("_imaps._tcp.elsewhere.example", SRV): [(0, 0, 993, "imap.thief.example")],
}


@pytest.fixture(scope="module")
def names():
    return NameServer(records=RECORDS)


@pytest.fixture(scope="module")
def stack(names):
    with Stack(mail=False, fetcher_arguments=("--name-servers", names.address), config_arguments=("--lookup-timeout", "30s")) as stack:
        yield stack.start()


@pytest.fixture(scope="module")
def api(stack):
    with stack.channel(stack.config) as channel:
        yield mailbox_service_pb2_grpc.MailboxServiceStub(channel)


def suggest(api, address):
    return api.SuggestSettings(m.SuggestSettingsRequest(address=address), timeout=60)


def shown(servers):
    return [(s.host, s.port, s.encryption) for s in servers]


def reasons(answer):
    assert all(w.text.de and w.text.en for w in answer.warnings)
    return [w.reason for w in answer.warnings]


def test_a_provider_of_the_table(api):
    found = suggest(api, "support@gmx.de")
    assert (found.source, found.provider.id, found.login_name) == (PROVIDER, "gmx", "support@gmx.de")
    assert shown(found.inbound) == [("imap.gmx.net", 993, TLS)]
    assert shown(found.outbound) == [("mail.gmx.net", 465, TLS), ("mail.gmx.net", 587, STARTTLS)]
    assert found.provider.source_url.startswith("https://") and "IMAP" in found.provider.notes[0].de
    assert reasons(suggest(api, "support@gmail.com")) == ["APP_PASSWORD_NEEDED"]
    assert reasons(suggest(api, "support@outlook.com")) == ["PASSWORD_SIGN_IN_ENDED"]


def test_what_the_domain_announces(api):
    found = suggest(api, "support@announced.example")
    assert found.source == DNS_SRV and not found.HasField("provider")
    assert shown(found.inbound) == [("best.announced.example", 993, TLS), ("first.announced.example", 993, TLS),
                                    ("second.announced.example", 1993, TLS), ("mail.announced.example", 143, STARTTLS)]
    assert shown(found.outbound) == [("smtp.announced.example", 465, TLS)]


def test_who_receives_the_domains_mail(api):
    found = suggest(api, "support@workspace.example")
    assert (found.source, found.provider.id) == (DNS_MX, "google")
    assert shown(found.inbound) == [("imap.gmail.com", 993, TLS)]
    assert found.provider.min_fetch_interval.seconds == 600 and found.provider.max_connections == 15


def test_a_domain_beyond_ascii(api):
    found = suggest(api, "post@B\u00fccher.example")
    assert (found.source, found.login_name) == (DNS_SRV, "post@B\u00fccher.example")
    assert shown(found.inbound) == [("imap.xn--bcher-kva.example", 993, TLS)]


def test_a_guess_is_called_one(api, names, stack):
    found = suggest(api, "support@unheard.example")
    assert (found.source, reasons(found)) == (GUESS, [])
    assert shown(found.inbound) == [("imap.unheard.example", 993, TLS)]
    assert shown(found.outbound) == [("smtp.unheard.example", 465, TLS)]
    names.silent = True
    try:
        found = suggest(api, "support@announced.example")
        assert (found.source, reasons(found)) == (GUESS, ["LOOKUP_FAILED"])
    finally:
        names.silent = False


@pytest.mark.parametrize("address", ["", "example.org", "a@", "@b", "a@b..c", "a@[127.0.0.1]", "a@b c", "a@" + "x" * 64 + ".org",
                                     "a\r\n@example.org", "a@example.org."])
def test_what_is_no_address_is_refused(api, address):
    with pytest.raises(grpc.RpcError) as error:
        suggest(api, address)
    status = status_pb2.Status.FromString(dict(error.value.trailing_metadata())["grpc-status-details-bin"])
    bad = error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(bad)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert [v.field for v in bad.field_violations] == ["address"]


def mailbox(host, interval=600, encryption=TLS):
    box = mailbox_pb2.Mailbox(display_name=f"{host} {interval} {encryption}", direction=1, address="support@example.org")
    box.connection.protocol, box.connection.host, box.connection.encryption = 1, host, encryption
    box.password_authentication.password = "top-secret-word"
    box.import_options.fetch_interval.seconds = interval
    return box


def test_every_answer_warns_and_nothing_is_stored(api):
    made = api.CreateMailbox(m.CreateMailboxRequest(mailbox=mailbox("imap.gmail.com", 60))).mailbox
    assert [w.field for w in made.warnings] == ["import_options.fetch_interval"]
    assert reasons(made) == ["INTERVAL_BELOW_PROVIDER_MINIMUM"]
    read = api.GetMailbox(m.GetMailboxRequest(name=made.name)).mailbox
    listed = api.ListMailboxes(m.ListMailboxesRequest(text="imap.gmail.com")).mailboxes
    assert [reasons(read), *map(reasons, listed)] == [["INTERVAL_BELOW_PROVIDER_MINIMUM"]] * 2
    update = m.UpdateMailboxRequest(mailbox=read)
    update.mailbox.import_options.fetch_interval.seconds = 600
    update.update_mask.paths.append("import_options.fetch_interval")
    assert reasons(api.UpdateMailbox(update).mailbox) == []
    assert reasons(api.GetMailbox(m.GetMailboxRequest(name=made.name)).mailbox) == []
    microsoft = api.CreateMailbox(m.CreateMailboxRequest(mailbox=mailbox("outlook.office365.com"))).mailbox
    assert reasons(microsoft) == ["PASSWORD_SIGN_IN_ENDED"]
    clear = api.CreateMailbox(m.CreateMailboxRequest(mailbox=mailbox("imap.example.org", encryption=NONE))).mailbox
    assert reasons(clear) == ["CLEAR_TEXT"]
    copy = api.DuplicateMailbox(m.DuplicateMailboxRequest(name=clear.name, kind=1)).mailbox
    assert reasons(copy) == ["CLEAR_TEXT"]


def test_a_counterpart_at_a_known_provider_keeps_the_password(api):
    def counterpart(host):
        made = api.CreateMailbox(m.CreateMailboxRequest(mailbox=mailbox(host))).mailbox
        return api.DuplicateMailbox(m.DuplicateMailboxRequest(name=made.name, kind=2)).mailbox

    gmx = counterpart("imap.gmx.net")
    assert (gmx.connection.host, gmx.connection.port, gmx.connection.encryption) == ("mail.gmx.net", 465, TLS)
    assert gmx.password_authentication.password_set
    # A guess may be anybody's, and less protection has to be wanted.
    unknown = counterpart("imap.example.net")
    assert unknown.connection.host == "smtp.example.net" and not unknown.password_authentication.password_set
    icloud = counterpart("imap.mail.me.com")
    assert (icloud.connection.host, icloud.connection.encryption) == ("smtp.mail.me.com", STARTTLS)
    assert not icloud.password_authentication.password_set


def test_an_update_to_another_server_of_the_provider_asks_for_the_password(api):
    made = api.CreateMailbox(m.CreateMailboxRequest(mailbox=mailbox("imap.googlemail.com"))).mailbox
    update = m.UpdateMailboxRequest(mailbox=made)
    update.mailbox.connection.host = "imap.gmail.com"
    update.update_mask.paths.append("connection.host")
    with pytest.raises(grpc.RpcError) as error:
        api.UpdateMailbox(update)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_the_command_line(stack):
    text = stack.cli("mailbox", "suggest", "support@gmail.com").stdout.decode()
    assert "imap.gmail.com" in text and "smtp.gmail.com" in text and "600 s" in text and "15 connections" in text
    assert "note: " in text and "warning: " in text
    found = json.loads(stack.cli("-o", "json", "mailbox", "suggest", "support@workspace.example").stdout)
    assert found["source"] == "SOURCE_DNS_MX"

    def create(name, address, *more, **kwargs):
        return stack.cli("-o", "json", "mailbox", "create", "--name", name, "--address", address, "--suggest", "--disabled", *more,
                         password="x", **kwargs)

    made = json.loads(create("S1", "support@web.de").stdout)
    assert made["connection"]["host"] == "imap.web.de" and made["connection"]["port"] == 993
    made = json.loads(create("S2", "support@posteo.de", "--encryption", "starttls").stdout)
    assert (made["connection"]["host"], made["connection"]["port"]) == ("posteo.de", 143)
    made = json.loads(create("S3", "support@announced.example", "--outbound").stdout)
    assert made["connection"]["host"] == "smtp.announced.example"
    made = json.loads(create("S4", "support@gmx.de", "--host", "imap.example.org").stdout)
    assert made["connection"]["host"] == "imap.example.org"
    for name, address in (("S5", "support@tuta.com"), ("S6", "support@elsewhere.example")):
        refused = create(name, address, check=False)
        assert refused.returncode == 1 and b"--host" in refused.stderr
    assert b"imap.thief.example" in refused.stderr


def test_without_the_fetcher_it_is_a_guess_that_says_so(api, stack):
    stack.fetcher.stop()
    found = suggest(api, "support@announced.example")
    assert (found.source, reasons(found)) == (GUESS, ["LOOKUP_FAILED"])
    assert suggest(api, "support@gmx.de").source == PROVIDER
