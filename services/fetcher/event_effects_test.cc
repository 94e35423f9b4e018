#include "services/fetcher/event_effects.h"

#include <gtest/gtest.h>

#include "poststelle/fetcher/v1/ticket.pb.h"

namespace poststelle::fetcher {
namespace {

config::v1::ImportOptions Options() {
  config::v1::ImportOptions options;
  options.set_new_ticket_status("ticketStatuses/new");
  options.set_reply_ticket_status("ticketStatuses/open");
  options.add_ticket_labels("labels/a");
  options.add_ticket_labels("labels/b");
  options.set_reply_via("mailboxes/answers");
  return options;
}

v1::TicketEvent Read(const std::string& effects) {
  v1::TicketEvent event;
  EXPECT_TRUE(event.ParseFromString(effects));
  return event;
}

TEST(EventEffects, ANewTicketGetsStatusLabelsAndWhoAnswers) {
  const v1::TicketEvent opened = Read(EffectsOf(Options(), v1::Message()).if_opened);
  EXPECT_EQ(opened.status(), "ticketStatuses/new");
  ASSERT_EQ(opened.labels_size(), 2);
  EXPECT_EQ(opened.labels(1), "labels/b");
  EXPECT_EQ(opened.reply_via(), "mailboxes/answers");
}

TEST(EventEffects, APersonsReplySetsTheStatusAndNoLabels) {
  const v1::TicketEvent reply = Read(EffectsOf(Options(), v1::Message()).if_reply);
  EXPECT_EQ(reply.status(), "ticketStatuses/open");
  EXPECT_EQ(reply.labels_size(), 0);
  EXPECT_EQ(reply.reply_via(), "mailboxes/answers");
}

TEST(EventEffects, RepliesOfMachinesAndHistoricalOnesLeaveTheStatusAlone) {
  v1::Message message;
  for (int origin = v1::Message::Origin_MIN + 1; origin <= v1::Message::Origin_MAX; ++origin) {
    message.set_origin(static_cast<v1::Message::Origin>(origin));
    const EventEffects effects = EffectsOf(Options(), message);
    EXPECT_EQ(Read(effects.if_reply).status(), "") << origin;
    EXPECT_EQ(Read(effects.if_reply).reply_via(), "mailboxes/answers");
    EXPECT_EQ(Read(effects.if_opened).status(), "ticketStatuses/new");
  }
  message.Clear();
  message.set_historical(true);
  EXPECT_EQ(Read(EffectsOf(Options(), message).if_reply).status(), "");
  EXPECT_EQ(Read(EffectsOf(Options(), message).if_opened).status(), "ticketStatuses/new");
}

TEST(EventEffects, AMailboxWithoutThemCostsNothing) {
  const EventEffects effects = EffectsOf(config::v1::ImportOptions(), v1::Message());
  EXPECT_EQ(effects.if_opened, "");
  EXPECT_EQ(effects.if_reply, "");
}

}  // namespace
}  // namespace poststelle::fetcher
