// Pages of lists that run from the newest to the oldest, optionally of one mailbox.
#pragma once

#include <charconv>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "libs/rpc/page_token.h"
#include "services/fetcher/ledger_queries.h"
#include "services/fetcher/names.h"

namespace poststelle::fetcher {

// Reads mailbox, page_size and page_token of a list request, adding what is wrong to `violations`.
struct TimePage {
  template <typename Request>
  TimePage(const Request& request, const std::string& list, std::string page_key,
           std::vector<rpc::Violation>& violations)
      : key(std::move(page_key)), arguments(list + "\n" + request.mailbox()) {
    if (!request.mailbox().empty()) mailbox_id = IdOf(request.mailbox(), "mailboxes", "mailbox", violations);
    const Page page = PageOf(request.page_size(), request.page_token(), 50, key, arguments, violations);
    size = page.size;
    const size_t blank = page.position.find(' ');
    if (blank == std::string::npos) return;
    LedgerQueries::After position;
    std::from_chars(page.position.data(), page.position.data() + blank, position.time);
    position.id = page.position.substr(blank + 1);
    after = std::move(position);
  }

  // The token of the page behind the entry with this time and resource name.
  std::string TokenAfter(int64_t time_ms, const std::string& name) const {
    return rpc::MakePageToken(key, arguments, absl::StrCat(time_ms, " ", name.substr(name.rfind('/') + 1)));
  }

  std::string key;
  std::string arguments;
  std::string mailbox_id;
  int size = 0;
  std::optional<LedgerQueries::After> after;
};

}  // namespace poststelle::fetcher
