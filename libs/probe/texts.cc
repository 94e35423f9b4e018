#include "libs/probe/texts.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace poststelle::probe {
namespace {

// One row: a reason, the step at which it means this (KIND_UNSPECIFIED: at any), and the texts. The first that fits
// counts.
struct Row {
  const char* reason;
  Step::Kind kind;
  const char* explanation_de;
  const char* explanation_en;
  const char* remedy_de;
  const char* remedy_en;
};

constexpr Step::Kind kAny = Step::KIND_UNSPECIFIED;

constexpr Row kRows[] = {
    {"HOST_UNKNOWN", kAny, "Den Servernamen {host} kennt das DNS nicht, oder er hat keine Adresse.",
     "The DNS does not know the server name {host}, or it has no address.",
     "Den Servernamen prüfen, zum Beispiel auf Tippfehler.", "Check the server name, for example for typing errors."},
    {"ADDRESS_NOT_ALLOWED", kAny,
     "Mit der Adresse von {host} darf sich diese Installation nicht verbinden; es wurde nichts dorthin gesendet.",
     "This installation may not connect to the address of {host}; nothing was sent there.",
     "Den Servernamen prüfen. Für einen eigenen Server trägt der Betreiber dessen Netz in --egress-allow ein.",
     "Check the server name. For a server of one's own the operator adds its network to --egress-allow."},
    {"CONNECTION_REFUSED", kAny, "Auf {host} nimmt an Port {port} niemand Verbindungen an.",
     "Nobody on {host} accepts connections on port {port}.",
     "Server und Port prüfen, und ob eine Firewall die Verbindung durchlässt.",
     "Check server and port, and whether a firewall lets the connection through."},
    {"TIMEOUT", Step::KIND_NAME_LOOKUP, "Das DNS hat nach {host} gefragt und keine Antwort bekommen.",
     "The DNS was asked for {host} and did not answer in time.",
     "Später noch einmal versuchen; der Betreiber prüft die Namensauflösung.",
     "Try again later; the operator checks the name servers."},
    {"TIMEOUT", Step::KIND_CONNECT, "{host} hat an Port {port} nicht geantwortet.",
     "{host} did not answer on port {port}.",
     "Server und Port prüfen; oft verwirft eine Firewall solche Verbindungen stillschweigend.",
     "Check server and port; often a firewall drops such connections silently."},
    {"TIMEOUT", Step::KIND_TLS, "Der Server hat auf den Beginn von TLS nicht geantwortet.",
     "The server did not answer the beginning of TLS.",
     "Verschlüsselung und Port prüfen: TLS gehört zu Port 993 oder 465, STARTTLS zu 143 oder 587.",
     "Check encryption and port: TLS goes with port 993 or 465, STARTTLS with 143 or 587."},
    {"TIMEOUT", Step::KIND_GREETING, "Der Server nahm die Verbindung an und sagte nichts.",
     "The server accepted the connection and said nothing.",
     "Verschlüsselung und Port prüfen: Ein Port, der sofort TLS erwartet, schweigt ohne TLS.",
     "Check encryption and port: a port that expects TLS at once is silent without it."},
    {"TIMEOUT", kAny, "Der Server hat nicht rechtzeitig geantwortet.", "The server did not answer in time.",
     "Später noch einmal versuchen; der Server ist vielleicht überlastet.",
     "Try again later; the server may be overloaded."},
    {"CONNECTION_CLOSED", Step::KIND_TLS, "Der Server hat die Verbindung während des TLS-Aufbaus beendet.",
     "The server ended the connection during the TLS handshake.", "Verschlüsselung und Port prüfen.",
     "Check encryption and port."},
    {"CONNECTION_CLOSED", Step::KIND_GREETING, "Der Server hat die Verbindung abgewiesen, statt sich zu melden.",
     "The server turned the connection away instead of greeting.",
     "Später noch einmal versuchen. Bleibt es dabei: Port und Verschlüsselung prüfen, und ob der Server uns sperrt.",
     "Try again later. If it stays so: check port and encryption, and whether the server blocks us."},
    {"CONNECTION_CLOSED", kAny, "Der Server hat die Verbindung zu früh beendet.",
     "The server ended the connection too early.", "Später noch einmal versuchen.", "Try again later."},
    {"TLS_FAILED", kAny, "Mit dem Server kommt keine TLS-Verbindung zustande.",
     "No TLS connection to the server comes about.",
     "Verschlüsselung und Port prüfen: Vielleicht spricht dieser Port erst nach STARTTLS oder gar nicht TLS, oder der "
     "Server kann nur TLS vor Version 1.2.",
     "Check encryption and port: this port may speak TLS after STARTTLS only, or not at all, or the server knows "
     "nothing newer than TLS 1.1."},
    {"CERTIFICATE_EXPIRED", kAny, "Das Zertifikat des Servers gilt von {not_before} bis {not_after}, also nicht jetzt.",
     "The server's certificate is valid from {not_before} to {not_after}, so not now.",
     "Der Betreiber des Mailservers muss es erneuern.", "The operator of the mail server has to renew it."},
    {"CERTIFICATE_NAME_MISMATCH", kAny, "Das Zertifikat ist nicht auf {host} ausgestellt, sondern auf {names}.",
     "The certificate is not made out to {host} but to {names}.",
     "Als Server den Namen eintragen, auf den das Zertifikat ausgestellt ist, wenn es der richtige Server ist.",
     "Enter the name that the certificate is made out to, if it is the right server."},
    {"CERTIFICATE_UNTRUSTED", kAny, "Dem Aussteller des Zertifikats, {issuer}, wird hier nicht vertraut.",
     "The issuer of the certificate, {issuer}, is not trusted here.",
     "Bei einer eigenen Zertifizierungsstelle deren Zertifikat beim Postfach eintragen.",
     "If the server uses a private authority, add that authority's certificate to the mailbox."},
    {"CERTIFICATE_KEY_MISMATCH", kAny, "Der Server zeigt einen anderen Schlüssel als den, der festgelegt ist.",
     "The server shows another key than the one that is pinned.",
     "Hat der Server wirklich einen neuen Schlüssel, dessen SHA-256 eintragen; vorher auf anderem Weg vergleichen.",
     "If the server really has a new key, pin its SHA-256; compare it by another way first."},
    {"STARTTLS_MISSING", kAny, "Der Server bietet kein STARTTLS an; im Klartext wird nicht weitergemacht.",
     "The server offers no STARTTLS; nothing goes on in clear text.",
     "TLS mit dem Port dafür wählen, oder den Betreiber des Mailservers fragen.",
     "Choose TLS with its port, or ask the operator of the mail server."},
    {"AUTHENTICATION_REJECTED", kAny, "Der Server lehnt Anmeldename oder Passwort ab (angemeldet als {login}).",
     "The server rejects login name or password (signed in as {login}).",
     "Anmeldename und Passwort prüfen. Manche Anbieter verlangen ein App-Passwort oder die Freigabe von IMAP und SMTP.",
     "Check login name and password. Some providers want an app password, or IMAP and SMTP to be switched on."},
    {"AUTHENTICATION_DISABLED", kAny,
     "Die Anmeldung mit Passwort ist für dieses Konto oder diesen Server abgeschaltet.",
     "Signing in by password is switched off for this account or server.",
     "Beim Anbieter ein App-Passwort anlegen, oder den Administrator des Kontos fragen.",
     "Make an app password at the provider, or ask the administrator of the account."},
    {"AUTHENTICATION_UNAVAILABLE", kAny,
     "Der Server bietet auf dieser Verbindung keine Anmeldung mit Passwort an, die benutzt werden darf.",
     "The server offers no sign-in by password on this connection that may be used.",
     "TLS oder STARTTLS wählen: Ohne Verschlüsselung erlauben Server die Anmeldung meist nicht. Bei SMTP den "
     "Port für Einlieferung (587 oder 465) benutzen.",
     "Choose TLS or STARTTLS: servers mostly allow no sign-in without encryption. With SMTP use the port for "
     "submission (587 or 465)."},
    {"FOLDER_MISSING", kAny, "Den Ordner {folder} gibt es auf dem Server nicht, oder er lässt sich nicht öffnen.",
     "There is no folder {folder} on the server, or it can't be opened.",
     "Den Namen des Ordners prüfen, oder ihn auf dem Server anlegen.",
     "Check the folder's name, or create it on the server."},
    {"TARGET_FOLDER_MISSING", kAny, "Den Zielordner {folder} gibt es auf dem Server nicht.",
     "There is no target folder {folder} on the server.",
     "Den Zielordner auf dem Server anlegen, oder einen anderen wählen.",
     "Create the target folder on the server, or choose another one."},
    {"UIDPLUS_MISSING", kAny, "Der Server kann einzelne Nachrichten nicht gezielt entfernen (weder MOVE noch UIDPLUS).",
     "The server can't remove single messages safely (neither MOVE nor UIDPLUS).",
     "Nach dem Import „als gelesen markieren“ oder „liegen lassen“ wählen.",
     "Choose to mark as read or to leave after import."},
    {"PROTOCOL_ERROR", Step::KIND_GREETING,
     "Was auf {host} an Port {port} antwortet, spricht nicht das gewählte Protokoll.",
     "What answers on {host}, port {port}, does not speak the chosen protocol.", "Server und Port prüfen.",
     "Check server and port."},
    {"PROTOCOL_ERROR", kAny, "Die Antwort des Servers ergibt keinen Sinn.", "The server's answer makes no sense.",
     "Server und Port prüfen; sonst den Betreiber des Mailservers fragen.",
     "Check server and port; otherwise ask the operator of the mail server."},
    {"SENDER_REFUSED", kAny, "Der Server lässt {address} nicht als Absender zu.",
     "The server does not allow {address} as the sender.",
     "Als Adresse des Postfachs eine eintragen, für die dieses Konto senden darf.",
     "Give the mailbox an address that this account may send as."},
    {"RECIPIENT_REFUSED", kAny, "Der Server nimmt keine Mail an {recipient} an.",
     "The server takes no mail for {recipient}.",
     "Die Adresse des Empfängers prüfen, und ob dieser Server Mail nach außen annimmt.",
     "Check the recipient's address, and whether this server takes mail for other domains."},
    {"MESSAGE_REFUSED", kAny, "Der Server hat die Testnachricht nicht angenommen.",
     "The server did not accept the test message.",
     "Die Worte des Servers sagen, warum; sonst den Betreiber des Mailservers fragen.",
     "The server's words say why; otherwise ask the operator of the mail server."},
    {"SEND_UNCERTAIN", kAny, "Die Testnachricht wurde übertragen, der Server hat ihren Empfang aber nicht bestätigt.",
     "The test message was transmitted, but the server did not confirm that it has it.",
     "Beim Empfänger nachsehen, ob sie angekommen ist.", "See whether it arrived at the recipient."},
    {"SERVER_REFUSED", kAny, "Der Server hat einen Befehl abgelehnt.", "The server refused a command.",
     "Die Worte des Servers sagen, warum; oft hilft es, später noch einmal zu versuchen.",
     "The server's words say why; often it helps to try again later."},
    {"CONNECTIONS_BUSY", kAny, "Alle Verbindungen, die zu diesem Server oder Konto erlaubt sind, sind gerade belegt.",
     "All connections that are allowed to this server or account are in use.", "Gleich noch einmal versuchen.",
     "Try again in a moment."},
};

constexpr Row kOther = {"",
                        kAny,
                        "Der Test ist an einem Fehler dieser Installation gescheitert.",
                        "The test failed because of an error of this installation.",
                        "Der Betreiber findet mehr im Protokoll des Dienstes.",
                        "The operator finds more in the service's log."};

std::string Filled(const char* text, const Words& words) {
  std::vector<std::pair<std::string, std::string>> replacements;
  for (const auto& [name, word] : words) replacements.emplace_back(absl::StrCat("{", name, "}"), word);
  return absl::StrReplaceAll(text, replacements);
}

}  // namespace

void Explain(const Words& words, Step& step) {
  const Row* row = std::find_if(std::begin(kRows), std::end(kRows), [&step](const Row& r) {
    return step.reason() == r.reason && (r.kind == kAny || r.kind == step.kind());
  });
  if (row == std::end(kRows)) row = &kOther;
  step.mutable_explanation()->set_de(Filled(row->explanation_de, words));
  step.mutable_explanation()->set_en(Filled(row->explanation_en, words));
  step.mutable_remedy()->set_de(Filled(row->remedy_de, words));
  step.mutable_remedy()->set_en(Filled(row->remedy_en, words));
}

std::vector<std::string> ReasonsWithTexts() {
  std::vector<std::string> out;
  for (const Row& row : kRows) {
    if (out.empty() || out.back() != row.reason) out.emplace_back(row.reason);
  }
  return out;
}

}  // namespace poststelle::probe
