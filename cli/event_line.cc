#include "cli/event_line.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cli/output.h"

namespace poststelle::cli {

using fetcher::v1::Message;
using fetcher::v1::TicketEvent;

std::string OriginWords(const Message& message) {
  switch (message.origin()) {
    case Message::ORIGIN_AUTOMATIC_REPLY:
      return "automatic reply";
    case Message::ORIGIN_AUTOMATIC:
      return "automatic";
    case Message::ORIGIN_BOUNCE:
      return "bounce";
    case Message::ORIGIN_RECEIPT:
      return "receipt";
    default:
      return "";
  }
}

std::string EventLine(const TicketEvent& event) {
  std::vector<std::string> marks;
  if (!event.status().empty()) marks.push_back("status " + event.status());
  if (event.labels_size() > 0) marks.push_back("labels " + absl::StrJoin(event.labels(), ", "));
  if (!event.reply_via().empty()) marks.push_back("via " + event.reply_via());
  if (const std::string origin = OriginWords(event.message()); !origin.empty()) marks.push_back(origin);
  if (event.message().historical()) marks.emplace_back("historical");
  const bool opened = event.type() == TicketEvent::TYPE_TICKET_OPENED;
  std::string line = absl::StrCat(opened ? "opened  " : "reply   ", event.ticket(), "  ",
                                  event.message().from().address(), "  ", event.message().subject());
  if (!marks.empty()) absl::StrAppend(&line, "  [", absl::StrJoin(marks, "; "), "]");
  return Escape(line);
}

}  // namespace poststelle::cli
