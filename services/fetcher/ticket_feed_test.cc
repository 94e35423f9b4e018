#include "services/fetcher/ticket_feed.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "libs/base/status_macros.h"
#include "services/fetcher/event_effects.h"
#include "services/fetcher/feed_hub.h"
#include "services/fetcher/partition_shares.h"
#include "services/fetcher/subscription_queries.h"
#include "services/fetcher/subscriptions.h"
#include "services/fetcher/testing_ledger.h"

namespace poststelle::fetcher {
namespace {

using Held = Subscriptions::Held;
using Step = Subscriptions::Step;

// Counts what reaches the database.
class CountingDatabase : public sql::Database {
 public:
  explicit CountingDatabase(sql::Database& inner) : inner_(inner) {}
  sql::Engine engine() const override { return inner_.engine(); }
  async::Task<absl::Status> Write(sql::Work work) override {
    ++writes;
    return inner_.Write(std::move(work));
  }
  async::Task<absl::Status> Read(sql::Work work) override {
    ++reads;
    return inner_.Read(std::move(work));
  }
  std::atomic<int> writes{0};
  std::atomic<int> reads{0};

 private:
  sql::Database& inner_;
};

class FeedTest : public LedgerTest {
 protected:
  Subscriptions Process(const std::string& name) { return Subscriptions(*database_, feed_, name, options_); }

  std::map<int, Held> HeldBy(const std::string& member, const std::string& name = "desk") {
    auto holdings = Await(process_.Holdings(name));
    EXPECT_TRUE(holdings.ok()) << holdings.status();
    return (*holdings)[member].held;
  }
  int Wanted(const std::string& member) {
    int count = 0;
    for (const auto& [partition, held] : HeldBy(member)) count += held.wanted ? 1 : 0;
    return count;
  }
  bool Join(const std::string& member, bool from_now = false) {
    return Await(process_.Join("desk", member, from_now)).ok();
  }
  // Everything that `member` should hand over, at once.
  bool ReleaseWanted(const std::string& member) {
    std::vector<std::pair<int, int64_t>> wanted;
    for (const auto& [partition, held] : HeldBy(member)) {
      if (held.wanted) wanted.emplace_back(partition, held.generation);
    }
    return Await(process_.Release("desk", member, wanted)).ok();
  }
  Step Acknowledge(const std::string& member, int partition, int64_t generation, int64_t offset,
                   std::optional<Subscriptions::Refusal> refusal = std::nullopt) {
    std::vector<Step> steps(1);
    steps[0].name = "desk";
    steps[0].member = member;
    steps[0].partition = partition;
    steps[0].generation = generation;
    steps[0].offset = offset;
    steps[0].refusal = std::move(refusal);
    EXPECT_TRUE(Await(process_.Apply(steps)).ok());
    return steps[0];
  }
  // Commits `count` events in one partition.
  void AddEvents(int partition, int count) {
    const absl::Status added = Write([&](sql::Transaction& tx) -> async::Task<absl::Status> {
      for (int i = 0; i < count; ++i) {
        std::vector<sql::Value> head{int64_t{partition}};
        auto moved =
            co_await tx.Execute("UPDATE partition_head SET last_offset = last_offset + 1 WHERE partition = $1", head);
        if (!moved.ok()) co_return moved.status();
        auto inserted = co_await tx.Execute(
            "INSERT INTO event (feed_partition, feed_offset, event_id, ticket_id, type, message_id, create_time) "
            "SELECT "
            "partition, last_offset, 'e' || last_offset, 't', 1, 'm', 1000 FROM partition_head WHERE partition = $1",
            head);
        if (!inserted.ok()) co_return inserted.status();
      }
      co_return absl::OkStatus();
    });
    ASSERT_TRUE(added.ok()) << added;
  }

  std::atomic<int64_t> now_{1'000'000};
  Subscriptions::Options options_{absl::Seconds(10), [this] { return now_.load(); }};
  Subscriptions process_{Process("this")};
};

TEST(PartitionShares, DifferByOneAndMoveNoMoreThanTheyMust) {
  std::mt19937 chance(7);
  for (int round = 0; round < 500; ++round) {
    std::vector<std::string> members;
    for (int i = 0; i < static_cast<int>(chance() % 70); ++i) members.push_back(absl::StrCat("m", i));
    std::vector<std::string> owners(64);
    for (std::string& owner : owners) owner = absl::StrCat("m", chance() % 80);
    const std::vector<std::string> shares = ShareOut(members, owners);
    if (members.empty()) {
      EXPECT_EQ(shares, std::vector<std::string>(64));
      continue;
    }
    std::map<std::string, int> before;
    std::map<std::string, int> after;
    for (const std::string& member : members) before[member] = after[member] = 0;
    int kept = 0;
    for (size_t p = 0; p < 64; ++p) {
      if (before.contains(owners[p])) ++before[owners[p]];
      ASSERT_TRUE(after.contains(shares[p]));
      ++after[shares[p]];
      kept += shares[p] == owners[p] ? 1 : 0;
    }
    const int low = 64 / static_cast<int>(members.size());
    int large_left = 64 % static_cast<int>(members.size());
    // The most that can stay: everybody keeps up to the small share, and one more where a large share is left.
    int can_stay = 0;
    for (const auto& [member, count] : before) {
      can_stay += std::min(count, low);
      if (count > low && large_left > 0) {
        ++can_stay;
        --large_left;
      }
    }
    EXPECT_EQ(kept, can_stay);
    for (const auto& [member, count] : after) EXPECT_TRUE(count == low || count == low + 1) << count;
  }
}

TEST_P(FeedTest, JoiningAndLeavingMembersShareThePartitionsGracefully) {
  ASSERT_TRUE(Join("a"));
  EXPECT_EQ(HeldBy("a").size(), 64u);
  ASSERT_TRUE(Join("b"));
  EXPECT_EQ(HeldBy("a").size(), 64u);  // until it has released what b is due
  EXPECT_EQ(Wanted("a"), 32);
  EXPECT_TRUE(HeldBy("b").empty());
  ASSERT_TRUE(ReleaseWanted("a"));
  EXPECT_EQ(HeldBy("a").size(), 32u);
  ASSERT_EQ(HeldBy("b").size(), 32u);
  for (const auto& [partition, held] : HeldBy("a")) EXPECT_EQ(held.generation, 1);
  for (const auto& [partition, held] : HeldBy("b")) EXPECT_EQ(held.generation, 2);
  ASSERT_TRUE(Join("c"));
  ASSERT_TRUE(ReleaseWanted("a"));
  ASSERT_TRUE(ReleaseWanted("b"));
  EXPECT_EQ(HeldBy("c").size(), 21u);
  ASSERT_TRUE(Await(process_.Leave("desk", "b")).ok());
  EXPECT_EQ(HeldBy("a").size(), 32u);
  EXPECT_EQ(HeldBy("c").size(), 32u);
}

TEST_P(FeedTest, AMemberTooManyWaits) {
  for (int i = 0; i < 65; ++i) ASSERT_TRUE(Join(absl::StrCat("m", i)));
  for (int i = 0; i < 65; ++i) ASSERT_TRUE(ReleaseWanted(absl::StrCat("m", i)));
  int idle = 0;
  for (int i = 0; i < 65; ++i) {
    const size_t count = HeldBy(absl::StrCat("m", i)).size();
    EXPECT_LE(count, 1u);
    idle += count == 0 ? 1 : 0;
  }
  EXPECT_EQ(idle, 1);
}

TEST_P(FeedTest, ADeadMembersPartitionsAreTakenOverAfterTheLeaseAndItsAcknowledgementsAreRefused) {
  AddEvents(3, 10);
  ASSERT_TRUE(Join("a"));
  const int64_t generation = HeldBy("a")[3].generation;
  ASSERT_TRUE(Acknowledge("a", 3, generation, 4).result.ok());
  Subscriptions other = Process("other");
  now_ += 9'999;
  ASSERT_TRUE(Await(other.Join("desk", "b", false)).ok());
  EXPECT_TRUE(HeldBy("b").empty());
  EXPECT_TRUE(Await(other.Look())->overdue.empty());
  now_ += 1;
  ASSERT_EQ(Await(other.Look())->overdue.count("desk"), 1u);
  ASSERT_TRUE(Await(other.Settle("desk")).ok());
  ASSERT_EQ(HeldBy("b").size(), 64u);
  EXPECT_EQ(HeldBy("b")[3].acknowledged, 4);
  EXPECT_TRUE(absl::IsAborted(Acknowledge("a", 3, generation, 9).result));
  EXPECT_TRUE(absl::IsAborted(Acknowledge("a", 3, generation + 1, 9).result));
  EXPECT_TRUE(absl::IsAborted(Acknowledge("b", 3, generation, 9).result));
  EXPECT_EQ(HeldBy("b")[3].acknowledged, 4);
  EXPECT_EQ(*Await(process_.Renew()), 0);  // so that the process knows that it must join anew
  EXPECT_EQ(*Await(other.Renew()), 1);
}

TEST_P(FeedTest, AcknowledgementsAreCumulativeAndNeverBeyondWhatThereIs) {
  AddEvents(3, 2);
  ASSERT_TRUE(Join("a"));
  const int64_t generation = HeldBy("a")[3].generation;
  EXPECT_TRUE(absl::IsInvalidArgument(Acknowledge("a", 3, generation, 3).result));
  EXPECT_TRUE(absl::IsInvalidArgument(Acknowledge("a", 4, HeldBy("a")[4].generation, 1).result));
  EXPECT_TRUE(Acknowledge("a", 3, generation, 2).result.ok());
  EXPECT_TRUE(Acknowledge("a", 3, generation, 1).result.ok());
  EXPECT_EQ(HeldBy("a")[3].acknowledged, 2);
}

TEST_P(FeedTest, ANewSubscriptionBeginsAtTheBeginningOrNow) {
  AddEvents(3, 5);
  ASSERT_TRUE(Join("a", true));
  EXPECT_EQ(HeldBy("a")[3].acknowledged, 5);
  ASSERT_TRUE(Await(process_.Join("other", "a", false)).ok());
  EXPECT_EQ(HeldBy("a", "other")[3].acknowledged, 0);
  ASSERT_TRUE(Await(process_.Join("other", "b", true)).ok());  // it exists: where it begins is settled
  EXPECT_EQ(HeldBy("a", "other")[3].acknowledged, 0);
}

TEST_P(FeedTest, AnEventThatIsRefusedTooOftenIsSetAside) {
  AddEvents(3, 4);
  ASSERT_TRUE(Join("a"));
  Subscriptions::Refusal refusal;
  refusal.max_refusals = 3;
  for (int i = 1; i <= 3; ++i) {
    refusal.reason = absl::StrCat("reason ", i);
    const int64_t generation = HeldBy("a")[3].generation;
    const Step refused = Acknowledge("a", 3, generation, 2, refusal);
    ASSERT_TRUE(refused.result.ok()) << refused.result;
    EXPECT_EQ(refused.refusals, i);
    EXPECT_EQ(HeldBy("a")[3].acknowledged, i < 3 ? 1 : 2);
    // What followed it was sent under the generation before: it can't pass over the refused one.
    EXPECT_TRUE(absl::IsAborted(Acknowledge("a", 3, generation, 4).result));
  }
  EXPECT_TRUE(absl::IsAborted(Acknowledge("a", 3, HeldBy("a")[3].generation, 1, refusal).result));
  SubscriptionQueries queries(*database_, feed_);
  auto aside = Await(queries.ListSetAside("desk", -1, 0, 10));
  ASSERT_TRUE(aside.ok() && aside->size() == 1) << aside.status();
  EXPECT_EQ((*aside)[0].position().offset(), 2);
  EXPECT_EQ((*aside)[0].reason(), "reason 3");
  EXPECT_EQ((*aside)[0].refusals(), 3);
  EXPECT_TRUE(absl::IsNotFound(Await(queries.ListSetAside("nobody", -1, 0, 10)).status()));
}

TEST_P(FeedTest, AnOperatorSeesWhoFellBehind) {
  AddEvents(3, 4);
  ASSERT_TRUE(Join("a"));
  ASSERT_TRUE(Acknowledge("a", 3, HeldBy("a")[3].generation, 1).result.ok());
  SubscriptionQueries queries(*database_, feed_);
  auto desk = Await(queries.Get("desk"));
  ASSERT_TRUE(desk.ok()) << desk.status();
  EXPECT_EQ(desk->lag(), 3);
  EXPECT_EQ(desk->oldest_unacknowledged_time().seconds(), 1);
  ASSERT_EQ(desk->partitions_size(), 64);
  EXPECT_EQ(desk->partitions(3).acknowledged_offset(), 1);
  EXPECT_EQ(desk->partitions(3).last_offset(), 4);
  ASSERT_EQ(desk->members_size(), 1);
  EXPECT_EQ(desk->members(0).partition_count(), 64);
  EXPECT_TRUE(absl::IsNotFound(Await(queries.Get("nobody")).status()));
  EXPECT_EQ(Await(queries.List("", 10))->size(), 1u);
  EXPECT_TRUE(Await(queries.List("desk", 10))->empty());
}

// The statements of the fetcher of the version before, which holds a subscription alone.
TEST_P(FeedTest, AFetcherOfTheVersionBeforeAndMembersKeepEachOtherOut) {
  AddEvents(3, 4);
  ASSERT_TRUE(Join("a"));
  const int64_t generation = HeldBy("a")[3].generation;
  EXPECT_EQ(Count("SELECT COUNT(*) FROM subscription WHERE holder <> '' AND expire_time > 1000000"), 1);  // it waits
  auto take = [](sql::Transaction& tx) -> async::Task<absl::Status> {
    co_return (co_await tx.Execute("UPDATE subscription SET generation = generation + 1, holder = 'old', expire_time = "
                                   "1030000"))
        .status();
  };
  now_ += 20'000;  // a's process is dead
  ASSERT_TRUE(Write(take).ok());
  EXPECT_TRUE(absl::IsAborted(Acknowledge("a", 3, generation, 2).result));
  ASSERT_TRUE(Join("b"));
  EXPECT_TRUE(HeldBy("b").empty());
  const int64_t fence = Count("SELECT generation FROM subscription");
  now_ += 10'000;
  ASSERT_TRUE(Join("b"));
  EXPECT_EQ(HeldBy("b").size(), 64u);
  EXPECT_GT(Count("SELECT generation FROM subscription"), fence);  // which refuses the old one's acknowledgements
  ASSERT_TRUE(Await(process_.Leave("desk", "b")).ok());
  EXPECT_EQ(Count("SELECT COUNT(*) FROM subscription WHERE holder = ''"), 1);
}

// Random joins, leaves, deaths and acknowledgements of simulated consumers, against what must always hold.
TEST_P(FeedTest, RandomSchedulesLoseNothingAndKeepTheOrder) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 chance(seed);
  constexpr int kPartitions = 6;
  auto run = [](sql::Transaction& tx) -> async::Task<absl::Status> {
    co_return (co_await tx.Execute("DELETE FROM partition_head WHERE partition >= 6")).status();
  };
  ASSERT_TRUE(Write(run).ok());
  std::vector<int64_t> heads(kPartitions);
  for (int schedule = 0; schedule < 200; ++schedule) {
    const std::string name = absl::StrCat("s", schedule);
    struct Consumer {
      std::map<int, Held> knows;         // may be stale
      std::map<int, int64_t> next;       // what it receives next
      std::map<int, int64_t> processed;  // furthest event it is done with
      bool dead = false;
    };
    std::map<std::string, Consumer> consumers;
    std::vector<std::set<int64_t>> delivered(kPartitions);
    std::vector<int64_t> cursor(kPartitions);
    std::vector<int64_t> done(kPartitions);  // furthest event that was acknowledged by its holder at the time
    int names = 0;
    auto random_consumer = [&]() -> std::string {
      if (consumers.empty()) return "";
      auto it = consumers.begin();
      std::advance(it, chance() % consumers.size());
      return it->first;
    };
    // The consumer's stream learns what the database says, and gets events of it in order.
    auto refresh = [&](const std::string& id) {
      Consumer& c = consumers[id];
      const std::map<int, Held> held = HeldBy(id, name);
      for (const auto& [partition, h] : held) {
        auto known = c.knows.find(partition);
        if (known == c.knows.end() || known->second.generation != h.generation) {
          EXPECT_EQ(h.acknowledged, cursor[partition]);
          c.next[partition] = h.acknowledged + 1;
        }
      }
      c.knows = held;
    };
    auto deliver = [&](const std::string& id, int most) {
      Consumer& c = consumers[id];
      for (const auto& [partition, h] : c.knows) {
        for (int i = 0; i < most && !h.wanted && c.next[partition] <= heads[partition]; ++i) {
          const int64_t offset = c.next[partition]++;
          // Nothing is passed over: what lies between was delivered, to this one or another.
          EXPECT_TRUE(offset == 1 || delivered[partition].contains(offset - 1));
          delivered[partition].insert(offset);
          c.processed[partition] = offset;
        }
      }
    };
    auto acknowledge = [&](const std::string& id) {
      Consumer& c = consumers[id];
      const auto present = HeldBy(id, name);
      for (const auto& [partition, h] : c.knows) {
        if (c.processed[partition] < 1 || c.next[partition] - 1 != c.processed[partition]) continue;
        std::vector<Step> steps(1);
        steps[0].name = name;
        steps[0].member = id;
        steps[0].partition = partition;
        steps[0].generation = h.generation;
        steps[0].offset = c.processed[partition];
        ASSERT_TRUE(Await(process_.Apply(steps)).ok());
        auto now = present.find(partition);
        const bool mine = now != present.end() && now->second.generation == h.generation;
        EXPECT_EQ(steps[0].result.ok(), mine) << steps[0].result;
        if (mine) done[partition] = std::max(done[partition], steps[0].offset);
      }
    };
    for (int step = 0; step < 40; ++step) {
      const std::string id = random_consumer();
      switch (chance() % 9) {
        case 0:
        case 1: {
          const std::string fresh = absl::StrCat("c", ++names);
          ASSERT_TRUE(Await(process_.Join(name, fresh, false)).ok());
          consumers[fresh];
          break;
        }
        case 2:
          if (id.empty()) break;
          ASSERT_TRUE(Await(process_.Leave(name, id)).ok());
          if (!consumers[id].dead) consumers.erase(id);  // or it goes on as if nothing had happened
          break;
        case 3:  // its lease runs out, but it goes on
          if (id.empty()) break;
          consumers[id].dead = true;
          ASSERT_TRUE(Write([&](sql::Transaction& tx) -> async::Task<absl::Status> {
                        std::vector<sql::Value> params{name, id};
                        co_return (co_await tx.Execute("UPDATE subscription_member SET expire_time = 0 WHERE name = "
                                                       "$1 AND member = $2",
                                                       std::move(params)))
                            .status();
                      }).ok());
          ASSERT_TRUE(Await(process_.Settle(name)).ok());
          break;
        case 4: {
          const int partition = static_cast<int>(chance() % kPartitions);
          AddEvents(partition, 2);
          heads[partition] += 2;
          break;
        }
        case 5:
          if (!id.empty()) deliver(id, 1 + static_cast<int>(chance() % 3));
          break;
        case 6:
          if (!id.empty()) acknowledge(id);
          break;
        case 7: {
          if (id.empty()) break;
          refresh(id);
          std::vector<std::pair<int, int64_t>> wanted;
          for (const auto& [partition, h] : consumers[id].knows) {
            if (h.wanted) wanted.emplace_back(partition, h.generation);
          }
          ASSERT_TRUE(Await(process_.Release(name, id, wanted)).ok());
          break;
        }
        default:
          if (!id.empty()) refresh(id);
      }
      // The cursor is where the acknowledgements of rightful holders brought it, to the event.
      for (int p = 0; p < kPartitions; ++p) {
        cursor[p] = Count(absl::StrCat("SELECT COALESCE(MAX(acknowledged), 0) FROM subscription_cursor WHERE name = '",
                                       name, "' AND feed_partition = ", p));
        EXPECT_EQ(cursor[p], done[p]);
      }
      if (HasFailure()) FAIL() << "schedule " << schedule << ", step " << step;
    }
    // Everybody is gone; one who comes now gets all the rest.
    for (const auto& [id, c] : consumers) ASSERT_TRUE(Await(process_.Leave(name, id)).ok());
    consumers.clear();
    ASSERT_TRUE(Await(process_.Join(name, "last", false)).ok());
    refresh("last");
    ASSERT_EQ(consumers["last"].knows.size(), static_cast<size_t>(kPartitions));
    deliver("last", 1'000'000);
    for (int p = 0; p < kPartitions; ++p) EXPECT_EQ(static_cast<int64_t>(delivered[p].size()), heads[p]);
    ASSERT_TRUE(Await(process_.Leave(name, "last")).ok());
  }
}

TEST_P(FeedTest, MembersExpireByTheClockOfTheDatabase) {
  if (GetParam() != sql::Engine::kPostgres) return;  // SQLite's is this host's
  // A server whose clock is a day behind ours. Its own function is found second.
  ASSERT_TRUE(Write([](sql::Transaction& tx) -> async::Task<absl::Status> {
                PS_CO_RETURN_IF_ERROR(
                    (co_await tx.Execute("CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql AS "
                                         "$$SELECT pg_catalog.clock_timestamp() - interval '1 day'$$"))
                        .status());
                co_return (co_await tx.Execute("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = "
                                               "public, pg_catalog', current_database()); END $$"))
                    .status();
              }).ok());
  auto opened = sql::Open(runtime_.executor(), store_.url());
  ASSERT_TRUE(opened.ok());
  Subscriptions subscriptions(**opened, feed_, "this", {});
  ASSERT_TRUE(Await(subscriptions.Join("desk", "one", false)).ok());
  EXPECT_LT(Count("SELECT MAX(expire_time) FROM subscription_member"),
            NowMs() - absl::ToInt64Milliseconds(absl::Hours(23)));
  auto pulse = Await(subscriptions.Look());
  ASSERT_TRUE(pulse.ok()) << pulse.status();
  EXPECT_TRUE(pulse->overdue.empty());
  EXPECT_EQ(Await(subscriptions.Renew()).value(), 1);
  ASSERT_TRUE(Await(subscriptions.Settle("desk")).ok());
  EXPECT_EQ(Count("SELECT COUNT(*) FROM subscription_member"), 1);
}

TEST_P(FeedTest, AnEventTooLargeForOneMessageIsAbridged) {
  v1::TicketEvent event;
  event.mutable_message()->set_name("messages/1");
  event.mutable_message()->set_subject("subject");
  event.mutable_message()->set_text(std::string(1000, 'x'));
  v1::TicketEvent small = event;
  Abridge(small, 2000);
  EXPECT_FALSE(small.abridged());
  EXPECT_EQ(small.message().text().size(), 1000u);
  Abridge(small, 500);
  EXPECT_TRUE(small.abridged());
  EXPECT_TRUE(small.message().text().empty());
  EXPECT_EQ(small.message().subject(), "subject");
  event.mutable_message()->set_subject(std::string(1000, 'x'));
  Abridge(event, 500);
  EXPECT_TRUE(event.abridged());
  EXPECT_EQ(event.message().name(), "messages/1");
  EXPECT_LT(event.ByteSizeLong(), 500u);
}

TEST_P(FeedTest, PagesEndBeforeTheyAreTooLarge) {
  for (uint32_t uid = 1; uid <= 3; ++uid) {
    ASSERT_TRUE(List(uid).ok());
    Publication mail = Mail(uid, "a@example.org", absl::StrCat(uid, "@x"), absl::StrCat("number ", uid));
    // Replies, so that they are in one partition.
    if (uid > 1) mail.content.add_in_reply_to("1@x");
    mail.content.set_text(
        std::string(uid == 2 ? TicketFeed::kMaxEventBytes + 1 : TicketFeed::kMaxEventBytes - 1000, 'x'));
    ASSERT_TRUE(Publish(mail).ok());
  }
  const int partition = static_cast<int>(Count("SELECT MIN(partition) FROM partition_head WHERE last_offset > 0"));
  TicketFeed feed(runtime_.executor(), *database_, feed_);
  int64_t after = 0;
  int events = 0;
  int abridged = 0;
  while (after < Count(absl::StrCat("SELECT last_offset FROM partition_head WHERE partition = ", partition))) {
    auto page = Await(feed.ReadPartition(partition, after, 100));
    ASSERT_TRUE(page.ok()) << page.status();
    ASSERT_FALSE(page->events.empty());
    size_t bytes = 0;
    for (const auto& event : page->events) {
      bytes += event.ByteSizeLong();
      abridged += event.abridged() ? 1 : 0;
    }
    EXPECT_LE(bytes, TicketFeed::kMaxEventBytes);
    events += static_cast<int>(page->events.size());
    after = page->events.back().position().offset();
  }
  EXPECT_EQ(events, 3);
  EXPECT_EQ(abridged, 1);
}

// Fixed at publication: what the mailbox's options are later changes nothing, and every reader gets the same.
TEST_P(FeedTest, EventsCarryTheEffectsTheyWerePublishedWith) {
  for (uint32_t uid = 1; uid <= 4; ++uid) {
    ASSERT_TRUE(List(uid).ok());
    Publication mail = Mail(uid, "a@example.org", absl::StrCat(uid, "@x"), absl::StrCat("number ", uid));
    if (uid > 1) mail.content.add_in_reply_to("1@x");
    config::v1::ImportOptions options;
    if (uid < 4) {
      options.set_new_ticket_status("ticketStatuses/new");
      options.set_reply_ticket_status("ticketStatuses/open");
      options.add_ticket_labels("labels/a");
      options.set_reply_via(absl::StrCat("mailboxes/answers-", uid));
    }
    if (uid == 3) mail.content.set_origin(v1::Message::ORIGIN_BOUNCE);
    mail.effects = EffectsOf(options, mail.content);
    ASSERT_TRUE(Publish(mail).ok());
    ASSERT_TRUE(Publish(mail).ok());  // as after a lost answer to COMMIT
  }
  EXPECT_EQ(Count("SELECT COUNT(*) FROM event WHERE effects IS NULL"), 1);
  const int partition = static_cast<int>(Count("SELECT MIN(partition) FROM partition_head WHERE last_offset > 0"));
  for (int round = 0; round < 2; ++round) {
    TicketFeed feed(runtime_.executor(), *database_, feed_);
    auto page = Await(feed.ReadPartition(partition, 0, 100));
    ASSERT_TRUE(page.ok()) << page.status();
    ASSERT_EQ(page->events.size(), 4u);
    const v1::TicketEvent& opened = page->events[0];
    EXPECT_EQ(opened.type(), v1::TicketEvent::TYPE_TICKET_OPENED);
    EXPECT_EQ(opened.status(), "ticketStatuses/new");
    ASSERT_EQ(opened.labels_size(), 1);
    EXPECT_EQ(opened.labels(0), "labels/a");
    EXPECT_EQ(opened.reply_via(), "mailboxes/answers-1");
    const v1::TicketEvent& reply = page->events[1];
    EXPECT_EQ(reply.type(), v1::TicketEvent::TYPE_REPLY_ADDED);
    EXPECT_EQ(reply.ticket(), opened.ticket());
    EXPECT_EQ(reply.status(), "ticketStatuses/open");
    EXPECT_EQ(reply.labels_size(), 0);
    const v1::TicketEvent& bounce = page->events[2];
    EXPECT_EQ(bounce.status(), "");
    EXPECT_EQ(bounce.reply_via(), "mailboxes/answers-3");
    EXPECT_EQ(bounce.message().origin(), v1::Message::ORIGIN_BOUNCE);
    EXPECT_EQ(page->events[3].reply_via(), "");
  }
}

class HubTest : public FeedTest {
 protected:
  // Waits until `holds`, told by the member's event.
  bool Until(Member& member, const std::function<bool()>& holds) {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    while (absl::Now() < deadline) {
      {
        std::lock_guard lock(member.mutex);
        if (holds()) return true;
      }
      Await(member.changed.Wait(absl::Milliseconds(20))).IgnoreError();
    }
    return false;
  }
  CountingDatabase counting_{*database_};
  TicketFeed reader_{runtime_.executor(), counting_, feed_};
};

TEST_P(HubTest, ManyIdleSubscribersCostOneStatementPerLook) {
  options_.now_ms = nullptr;
  Subscriptions subscriptions(counting_, feed_, "this", options_);
  FeedHub hub(runtime_.executor(), reader_, subscriptions, {});
  std::vector<std::shared_ptr<Member>> members;
  for (int i = 0; i < 100; ++i) {
    auto member = Await(hub.Join("desk", false));
    ASSERT_TRUE(member.ok());
    members.push_back(*member);
  }
  // Settled: 64 of them hold one partition.
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  int busy = 0;
  while (busy != 64 && absl::Now() < deadline) {
    busy = 0;
    for (const auto& member : members) {
      std::lock_guard lock(member->mutex);
      busy += member->parts.size() == 1 ? 1 : 0;
    }
    Await(async::Sleep(absl::Milliseconds(50))).IgnoreError();
  }
  ASSERT_EQ(busy, 64);
  Await(async::Sleep(absl::Milliseconds(500))).IgnoreError();
  const int reads = counting_.reads;
  const int writes = counting_.writes;
  const absl::Time begin = absl::Now();
  Await(async::Sleep(absl::Seconds(2))).IgnoreError();
  const double looks = absl::FDivDuration(absl::Now() - begin, absl::Milliseconds(100));
  std::printf("100 idle subscribers: %d reads, %d writes in %.1f looks\n", counting_.reads - reads,
              counting_.writes - writes, looks);
  EXPECT_LE(counting_.reads - reads, looks + 2);
  EXPECT_LE(counting_.writes - writes, 2);
  for (const auto& member : members) EXPECT_TRUE(Await(hub.Leave(member)).ok());
}

TEST_P(HubTest, ACommitOfThisProcessIsSeenAtOnce) {
  options_.now_ms = nullptr;
  Subscriptions subscriptions(counting_, feed_, "this", options_);
  FeedHub::Options rarely;
  rarely.look_every = absl::Hours(1);  // without the word nothing would be seen
  FeedHub hub(runtime_.executor(), reader_, subscriptions, rarely);
  auto member = Await(hub.Join("desk", false));
  ASSERT_TRUE(member.ok());
  ASSERT_TRUE(Until(**member, [&] { return (*member)->parts.size() == 64; }));
  std::vector<absl::Duration> took;
  for (int i = 1; i <= 20; ++i) {
    AddEvents(5, 1);
    const absl::Time begin = absl::Now();
    reader_.Committed();
    ASSERT_TRUE(Until(**member, [&] { return hub.Heads()->at(5) == i; }));
    took.push_back(absl::Now() - begin);
  }
  std::sort(took.begin(), took.end());
  std::printf("commit to wake-up: median %s, longest %s\n", absl::FormatDuration(took[10]).c_str(),
              absl::FormatDuration(took.back()).c_str());
  EXPECT_TRUE(Await(hub.Leave(*member)).ok());
}

TEST_P(HubTest, AcknowledgementsOfManyAreOneTransaction) {
  options_.now_ms = nullptr;
  for (int p = 0; p < 64; ++p) AddEvents(p, 100);
  Subscriptions subscriptions(counting_, feed_, "this", options_);
  FeedHub::Options options;
  options.gather = absl::Milliseconds(100);
  FeedHub hub(runtime_.executor(), reader_, subscriptions, options);
  auto member = Await(hub.Join("desk", false));
  ASSERT_TRUE(member.ok());
  ASSERT_TRUE(Until(**member, [&] { return (*member)->parts.size() == 64; }));
  const int writes = counting_.writes;
  for (int offset = 1; offset <= 100; ++offset) {
    for (int p = 0; p < 64; ++p) {
      Step step;
      step.partition = p;
      step.offset = offset;
      step.generation = 1;
      hub.Submit(*member, step);
    }
  }
  ASSERT_TRUE(Until(**member, [&] { return (*member)->unsettled == 0; }));
  std::printf("6400 acknowledgements: %d transactions\n", counting_.writes - writes);
  EXPECT_LE(counting_.writes - writes, 10);
  EXPECT_EQ(Count("SELECT CAST(SUM(acknowledged) AS BIGINT) FROM subscription_cursor"), 6400);
  Step stale;
  stale.partition = 0;
  stale.offset = 1;
  stale.generation = 7;
  hub.Submit(*member, stale);
  auto told = [&] { return !(*member)->outbox.empty() && (*member)->outbox.back().has_acknowledgement_refused(); };
  EXPECT_TRUE(Until(**member, told));
  EXPECT_TRUE(Await(hub.Leave(*member)).ok());
  EXPECT_EQ(Count("SELECT COUNT(*) FROM subscription_member"), 0);
}

std::string NameOf(const ::testing::TestParamInfo<sql::Engine>& info) { return testing::EngineName(info.param); }
const auto kEngines = ::testing::Values(sql::Engine::kSqlite, sql::Engine::kPostgres);
INSTANTIATE_TEST_SUITE_P(Engines, FeedTest, kEngines, NameOf);
INSTANTIATE_TEST_SUITE_P(Engines, HubTest, kEngines, NameOf);

}  // namespace
}  // namespace poststelle::fetcher
