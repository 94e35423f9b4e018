#include "services/fetcher/listing.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace poststelle::fetcher {

ListingRules RulesFor(const config::v1::Mailbox& mailbox, const Cursor& cursor, absl::Time now) {
  const config::v1::ImportOptions& options = mailbox.import_options();
  ListingRules rules;
  rules.also_read = options.also_fetch_read();
  rules.unlimited_age = options.unlimited_age();
  rules.max_age = absl::Hours(24) * (options.max_age_days() > 0 ? options.max_age_days() : 30);
  rules.first_listing = cursor.reference_ms == 0 || cursor.enable_generation != mailbox.enable_generation();
  rules.reference = rules.first_listing ? now : absl::FromUnixMillis(std::abs(cursor.reference_ms));
  return rules;
}

namespace {

int64_t AgeOf(const ListingRules& rules) {
  return rules.unlimited_age ? kUnlimitedAge : absl::ToInt64Seconds(rules.max_age);
}

}  // namespace

bool Wider(const ListingRules& rules, const Cursor& cursor) {
  if (cursor.max_age_s == 0) return false;
  return AgeOf(rules) > cursor.max_age_s || (rules.also_read && !cursor.also_read);
}

void Record(const ListingRules& rules, Cursor& cursor) {
  cursor.max_age_s = AgeOf(rules);
  cursor.also_read = rules.also_read;
}

bool TooOld(const ListingRules& rules, int64_t internal_date) {
  return !rules.unlimited_age && absl::FromUnixSeconds(internal_date) < rules.reference - rules.max_age;
}

Decision Decide(const ListingRules& rules, const Listed& mail) {
  Decision decision;
  decision.uid = mail.uid;
  decision.size = mail.size;
  decision.internal_date = mail.internal_date;
  decision.historical = rules.first_listing;
  if (mail.deleted) {
    decision.kind = Decision::Kind::kPassedOver;
    decision.rule = Decision::Rule::kDeleted;
    decision.reason = "It was marked as deleted on the server when it was first listed.";
  } else if (TooOld(rules, mail.internal_date)) {
    decision.kind = Decision::Kind::kPassedOver;
    decision.rule = Decision::Rule::kAge;
    decision.reason =
        absl::StrCat("It was received on ",
                     absl::FormatTime("%Y-%m-%d", absl::FromUnixSeconds(mail.internal_date), absl::UTCTimeZone()),
                     ", before the age limit of ", absl::ToInt64Hours(rules.max_age) / 24, " days counted from ",
                     absl::FormatTime("%Y-%m-%d", rules.reference, absl::UTCTimeZone()), ".");
  } else if (mail.seen && !rules.also_read) {
    decision.kind = Decision::Kind::kAsRead;
    decision.reason = "It was already read when it was first listed, and read mail is not imported here.";
  }
  return decision;
}

void MarkFirstAttempts(std::vector<Decision>& decisions, size_t messages, uint64_t bytes) {
  std::vector<Decision*> pending;
  for (Decision& decision : decisions) {
    if (decision.kind == Decision::Kind::kPending) pending.push_back(&decision);
  }
  std::sort(pending.begin(), pending.end(), [](const Decision* a, const Decision* b) {
    if (a->historical != b->historical) return b->historical;
    return a->historical ? a->uid > b->uid : a->uid < b->uid;
  });
  uint64_t sum = 0;
  for (size_t i = 0; i < std::min(pending.size(), messages); ++i) {
    sum += pending[i]->size;
    if (i > 0 && sum > bytes) break;
    pending[i]->attempted = true;
  }
}

}  // namespace poststelle::fetcher
