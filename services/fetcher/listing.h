// The rules of a listing: what is decided for each mail of a folder (SPEC §5.1 to 5.5). Plain values, no I/O.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "poststelle/config/v1/mailbox.pb.h"
#include "services/fetcher/ledger.h"

namespace poststelle::fetcher {

// What the server says about one mail.
struct Listed {
  uint32_t uid = 0;
  uint64_t size = 0;
  int64_t internal_date = 0;  // seconds since 1970
  bool seen = false;
  bool deleted = false;  // marked, and waiting to be expunged
};

// The rules of one poll of one folder.
struct ListingRules {
  bool also_read = false;
  bool unlimited_age = false;
  absl::Duration max_age;
  absl::Time reference;        // start of the last complete listing, or now at a first listing (SPEC §5.2)
  bool first_listing = false;  // everything in the folder is historical
};

// The rules that follow from the mailbox and its cursor. A first listing is one without a complete listing before it
// in this enabling and connection generation.
ListingRules RulesFor(const config::v1::Mailbox& mailbox, const Cursor& cursor, absl::Time now);

// True if the rules may import what was passed over by the options that the cursor tells; never where it tells none.
bool Wider(const ListingRules& rules, const Cursor& cursor);
// Writes the options of the rules into the cursor.
void Record(const ListingRules& rules, Cursor& cursor);

// True if `internal_date` is older than the limit.
bool TooOld(const ListingRules& rules, int64_t internal_date);

// Decides one mail: marked as deleted or too old is passed over for good, already read is passed over as read,
// everything else is pending.
Decision Decide(const ListingRules& rules, const Listed& mail);

// Marks those of `decisions` as attempted that are fetched first (ReadPending tells the order): at most `messages` of
// them and, from the second on, `bytes`.
void MarkFirstAttempts(std::vector<Decision>& decisions, size_t messages, uint64_t bytes);

}  // namespace poststelle::fetcher
