#include "cli/output.h"

#include <gtest/gtest.h>

#include "cli/event_line.h"

namespace poststelle::cli {
namespace {

TEST(Output, TerminalSequencesInMailAreHarmless) {
  EXPECT_EQ(Escape("a\x1b[31m\nb"), "a\\x1b[31m\\x0ab");
  EXPECT_EQ(Escape("\xC2\x9B"
                   "31m ü"),
            "\\x9b31m ü");
}

TEST(Output, TablesAlignByCharacters) { EXPECT_EQ(Table({{"NAME", "X"}, {"Büro", "1"}}), "NAME  X\nBüro  1\n"); }

TEST(Output, EnumNamesAreShort) { EXPECT_EQ(Short("STATE_FAILING", "STATE_"), "failing"); }

TEST(EventLine, TellsWhatTheEventDoesToItsTicketAndWhoWrote) {
  fetcher::v1::TicketEvent event;
  event.set_type(fetcher::v1::TicketEvent::TYPE_TICKET_OPENED);
  event.set_ticket("tickets/7");
  event.mutable_message()->mutable_from()->set_address("a@example.org");
  event.mutable_message()->set_subject("Hi\x1b[31m");
  EXPECT_EQ(EventLine(event), "opened  tickets/7  a@example.org  Hi\\x1b[31m");
  event.set_status("ticketStatuses/new");
  event.add_labels("labels/a");
  event.add_labels("labels/b");
  event.set_reply_via("mailboxes/b");
  EXPECT_EQ(EventLine(event),
            "opened  tickets/7  a@example.org  Hi\\x1b[31m  [status ticketStatuses/new; labels labels/a, labels/b; via "
            "mailboxes/b]");
  event.Clear();
  event.set_type(fetcher::v1::TicketEvent::TYPE_REPLY_ADDED);
  event.set_ticket("tickets/7");
  event.mutable_message()->set_subject("Out of office");
  event.mutable_message()->set_origin(fetcher::v1::Message::ORIGIN_AUTOMATIC_REPLY);
  event.mutable_message()->set_historical(true);
  EXPECT_EQ(EventLine(event), "reply   tickets/7    Out of office  [automatic reply; historical]");
}

}  // namespace
}  // namespace poststelle::cli
