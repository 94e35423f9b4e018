#include "services/sender/test_message.h"

#include "absl/strings/str_cat.h"
#include "libs/base/printable.h"

namespace poststelle::sender {

std::string TestMessage(const std::string& from, const std::string& to, const std::string& mailbox, absl::Time now,
                        const std::string& message_id) {
  return absl::StrCat(
      "From: <", from, ">\r\nTo: <", to, ">\r\nSubject: Poststelle: Testnachricht / test message\r\nDate: ",
      absl::FormatTime("%a, %d %b %Y %H:%M:%S +0000", now, absl::UTCTimeZone()), "\r\nMessage-ID: <", message_id,
      ">\r\nAuto-Submitted: auto-generated\r\nX-Auto-Response-Suppress: All\r\nMIME-Version: 1.0\r\nContent-Type: "
      "text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n",
      "Diese Nachricht hat jemand im Dialog „Postfächer verwalten“ ausgelöst, um das\r\n"
      "Postfach zu prüfen. Kommt sie an, funktioniert der Versand.\r\n\r\n"
      "Somebody asked for this message to try the settings of a mailbox. If it\r\n"
      "arrives, sending works.\r\n\r\n",
      "Postfach / mailbox: ", Printable(mailbox, 100), " <", from, ">\r\n");
}

}  // namespace poststelle::sender
