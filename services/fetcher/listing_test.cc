#include "services/fetcher/listing.h"

#include <gtest/gtest.h>

namespace poststelle::fetcher {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1'700'000'000);

int64_t DaysAgo(int days) { return absl::ToUnixSeconds(kNow - absl::Hours(24) * days); }

config::v1::Mailbox Mailbox() {
  config::v1::Mailbox mailbox;
  mailbox.mutable_import_options()->set_max_age_days(30);
  mailbox.set_enable_generation(1);
  return mailbox;
}

Cursor Listed(absl::Time reference) {
  Cursor cursor;
  cursor.uid_validity = 7;
  cursor.reference_ms = absl::ToUnixMillis(reference);
  cursor.enable_generation = 1;
  return cursor;
}

TEST(Listing, FirstListingCountsAgeFromNowAndMarksHistorical) {
  const ListingRules rules = RulesFor(Mailbox(), Cursor{}, kNow);
  EXPECT_TRUE(rules.first_listing);
  EXPECT_EQ(Decide(rules, {1, 10, DaysAgo(31), false}).kind, Decision::Kind::kPassedOver);
  const Decision young = Decide(rules, {2, 10, DaysAgo(29), false});
  EXPECT_EQ(young.kind, Decision::Kind::kPending);
  EXPECT_TRUE(young.historical);
}

TEST(Listing, AnOutageLongerThanTheAgeLimitLosesNothing) {
  // Last complete listing 100 days ago: what came a day later is 99 days old now, and is imported.
  const ListingRules rules = RulesFor(Mailbox(), Listed(kNow - absl::Hours(24 * 100)), kNow);
  const Decision decision = Decide(rules, {3, 10, DaysAgo(99), false});
  EXPECT_EQ(decision.kind, Decision::Kind::kPending);
  EXPECT_FALSE(decision.historical);
}

TEST(Listing, EnablingAgainIsAFirstListing) {
  config::v1::Mailbox mailbox = Mailbox();
  mailbox.set_enable_generation(2);
  const ListingRules rules = RulesFor(mailbox, Listed(kNow - absl::Hours(24 * 100)), kNow);
  EXPECT_TRUE(rules.first_listing);
  EXPECT_EQ(Decide(rules, {3, 10, DaysAgo(99), false}).kind, Decision::Kind::kPassedOver);
}

TEST(Listing, ReadMailIsPassedOverAsReadUnlessWanted) {
  config::v1::Mailbox mailbox = Mailbox();
  EXPECT_EQ(Decide(RulesFor(mailbox, Cursor{}, kNow), {1, 1, DaysAgo(1), true}).kind, Decision::Kind::kAsRead);
  mailbox.mutable_import_options()->set_also_fetch_read(true);
  EXPECT_EQ(Decide(RulesFor(mailbox, Cursor{}, kNow), {1, 1, DaysAgo(1), true}).kind, Decision::Kind::kPending);
}

TEST(Listing, UnlimitedAgeTakesEverything) {
  config::v1::Mailbox mailbox = Mailbox();
  mailbox.mutable_import_options()->set_unlimited_age(true);
  EXPECT_EQ(Decide(RulesFor(mailbox, Cursor{}, kNow), {1, 1, 0, false}).kind, Decision::Kind::kPending);
}

TEST(Listing, WiderOptionsAreToldFromNarrowerOnes) {
  config::v1::Mailbox mailbox = Mailbox();
  Cursor cursor = Listed(kNow);
  EXPECT_FALSE(Wider(RulesFor(mailbox, cursor, kNow), cursor));  // nothing is on record
  Record(RulesFor(mailbox, cursor, kNow), cursor);
  EXPECT_FALSE(Wider(RulesFor(mailbox, cursor, kNow), cursor));
  mailbox.mutable_import_options()->set_max_age_days(20);
  mailbox.mutable_import_options()->set_also_fetch_read(false);
  EXPECT_FALSE(Wider(RulesFor(mailbox, cursor, kNow), cursor));
  mailbox.mutable_import_options()->set_max_age_days(31);
  EXPECT_TRUE(Wider(RulesFor(mailbox, cursor, kNow), cursor));
  mailbox.mutable_import_options()->set_unlimited_age(true);
  EXPECT_TRUE(Wider(RulesFor(mailbox, cursor, kNow), cursor));
  Record(RulesFor(mailbox, cursor, kNow), cursor);
  mailbox.mutable_import_options()->set_max_age_days(3650);
  EXPECT_FALSE(Wider(RulesFor(mailbox, cursor, kNow), cursor));
  mailbox.mutable_import_options()->set_also_fetch_read(true);
  EXPECT_TRUE(Wider(RulesFor(mailbox, cursor, kNow), cursor));
}

TEST(Listing, AnInterruptedRelistingKeepsItsReference) {
  Cursor cursor = Listed(kNow - absl::Hours(48));
  cursor.reference_ms = -cursor.reference_ms;
  const ListingRules rules = RulesFor(Mailbox(), cursor, kNow);
  EXPECT_FALSE(rules.first_listing);
  EXPECT_EQ(rules.reference, kNow - absl::Hours(48));
}

std::vector<uint32_t> AttemptedOf(std::vector<Decision> decisions, size_t messages, uint64_t bytes) {
  MarkFirstAttempts(decisions, messages, bytes);
  std::vector<uint32_t> out;
  for (const Decision& decision : decisions) {
    if (decision.attempted) out.push_back(decision.uid);
  }
  return out;
}

TEST(Listing, TheFirstAttemptsAreOfWhatIsFetchedFirst) {
  std::vector<Decision> decisions(6);
  for (uint32_t i = 0; i < decisions.size(); ++i) {
    decisions[i].uid = i + 1;
    decisions[i].size = 10;
  }
  for (const size_t backlog : {0, 1, 2}) decisions[backlog].historical = true;
  decisions[3].kind = Decision::Kind::kAsRead;
  EXPECT_EQ(AttemptedOf(decisions, 3, 1000), (std::vector<uint32_t>{3, 5, 6}));  // new mail, then the newest before
  EXPECT_EQ(AttemptedOf(decisions, 1, 1000), (std::vector<uint32_t>{5}));
  EXPECT_EQ(AttemptedOf(decisions, 9, 20), (std::vector<uint32_t>{5, 6}));
  EXPECT_EQ(AttemptedOf(decisions, 9, 1), (std::vector<uint32_t>{5}));  // one goes whatever its size
  EXPECT_EQ(AttemptedOf({}, 9, 1000), (std::vector<uint32_t>{}));
}

}  // namespace
}  // namespace poststelle::fetcher
