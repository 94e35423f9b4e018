#include "services/fetcher/list_window.h"

#include <optional>
#include <utility>

#include "libs/base/status_macros.h"

namespace poststelle::fetcher {

async::Task<absl::StatusOr<std::vector<ListedMessage>>> ListWindow(imap::Client& client, imap::UidRange range,
                                                                   AnchorOf anchor_of, ListingWindows& windows) {
  ListingAnswer answer(range);
  const bool with_headers = anchor_of != nullptr;
  auto on_message = [&answer, &anchor_of](imap::MessageInfo info) -> absl::Status {
    if (!info.lacks.empty()) {
      answer.AddIncomplete(info.uid, info.lacks);
      return absl::OkStatus();
    }
    ListedMessage message;
    message.mail.uid = info.uid;
    message.mail.size = info.size;
    message.mail.internal_date = info.internal_date_unix;
    message.mail.seen = info.seen;
    message.mail.deleted = info.deleted;
    // Whoever sends a mail decides how long its headers are: none are kept.
    if (anchor_of) message.anchor = anchor_of(info);
    answer.Add(std::move(message));
    return absl::OkStatus();
  };
  std::function<absl::Status(imap::MessageInfo)> callback = on_message;
  PS_CO_RETURN_IF_ERROR(co_await client.FetchInfos(range, with_headers, callback));
  if (std::optional<imap::UidRange> incomplete = answer.TakeIncomplete()) {
    PS_CO_RETURN_IF_ERROR(co_await client.FetchInfos(*incomplete, with_headers, callback));
  }
  PS_CO_ASSIGN_OR_RETURN(std::vector<ListedMessage> items, answer.Take());
  if (answer.cut()) {
    windows.AnsweredCut(items.back().mail.uid, answer.highest());
  } else {
    windows.Answered(items.size());
  }
  co_return items;
}

}  // namespace poststelle::fetcher
