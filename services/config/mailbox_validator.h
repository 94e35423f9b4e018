// What a mailbox must be: defaults filled in, every bad field named at once.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "libs/rpc/status.h"
#include "poststelle/config/v1/mailbox.pb.h"

namespace poststelle::config {

// Whether a mailbox has to have a password: given with it, or stored before (`password_set`). An enabled one always.
enum class Passwords { kRequired, kWhenEnabled };

// Fills in defaults (port, encryption, age, interval, folder), brings spellings into one form (INBOX, hexadecimal) and
// returns every violation by its path ("mailbox.connection.port").
std::vector<rpc::Violation> CompleteAndValidate(v1::Mailbox& mailbox, absl::Duration min_interval, Passwords passwords);

// The port that protocol and encryption usually have.
int32_t UsualPort(const v1::Connection& connection);

// Whether a password that was given for `before` would go to somebody it was not given for with `after`: another host,
// less protection on the way, or another authority that vouches for the server. Whoever may change a mailbox must not
// come by its password that way. Another port of the same host, or more protection, is no reason to ask again.
// `counts`: what is another place. Servers of one provider in the table are one place for kAnotherProvider.
enum class Elsewhere { kAnotherHost, kAnotherProvider };
bool SendsPasswordElsewhere(const v1::Mailbox& before, const v1::Mailbox& after,
                            Elsewhere counts = Elsewhere::kAnotherHost);

// What an id that makes a repeat safe must be; none is fine.
void CheckRequestId(const std::string& request_id, std::vector<rpc::Violation>& violations);

// Whether this has the shape of a mail address, and at most 254 bytes.
bool IsAddress(const std::string& address);

// The form in which display names are compared: case-folded, NFC.
std::string NameKey(const std::string& display_name);

// 4 to 63 characters of a-z, 0-9 and hyphen, starting with a letter.
bool IsMailboxId(const std::string& id);

// An id of a catalogue: the same with 2 to 63 characters.
bool IsEntryId(const std::string& id);

}  // namespace poststelle::config
