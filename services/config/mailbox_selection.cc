#include "services/config/mailbox_selection.h"

#include <glib.h>

#include "libs/base/text.h"

namespace poststelle::config {
namespace {

constexpr int kMaxSelectors = 10;
constexpr long kMaxText = 100;

}  // namespace

MailboxSelection SelectionOf(const v1::ListMailboxesRequest& request, std::vector<rpc::Violation>& violations) {
  auto wrong = [&violations](const std::string& field, const std::string& description) {
    violations.push_back({field, description});
  };
  MailboxSelection out;
  if (!v1::Mailbox::Direction_IsValid(request.direction())) {
    wrong("direction", "must be DIRECTION_INBOUND, DIRECTION_OUTBOUND or not given");
  }
  out.direction = request.direction();
  if (request.has_enabled()) out.enabled = request.enabled();
  if (request.label_selectors_size() > kMaxSelectors) wrong("label_selectors", "must be at most 10");
  for (const std::string& selector : request.label_selectors()) {
    const size_t equals = selector.find('=');
    if (selector.empty() || equals == 0 || selector.size() > 512 || HasControl(selector)) {
      wrong("label_selectors", "each must be KEY or KEY=VALUE, without control characters");
    } else if (equals == std::string::npos) {
      out.labels.emplace_back(selector, std::nullopt);
    } else {
      out.labels.emplace_back(selector.substr(0, equals), selector.substr(equals + 1));
    }
  }
  out.text = request.text();
  if (g_utf8_strlen(out.text.data(), static_cast<gssize>(out.text.size())) > kMaxText) {
    wrong("text", "must have at most 100 characters");
  }
  if (HasControl(out.text)) wrong("text", "must have no control characters");
  std::string order = request.order_by();
  if (const size_t space = order.rfind(" desc"); space != std::string::npos && space + 5 == order.size()) {
    out.descending = true;
    order.resize(space);
  }
  using Order = MailboxSelection::Order;
  if (order == "address") {
    out.order = Order::kAddress;
  } else if (order == "create_time") {
    out.order = Order::kCreateTime;
  } else if (order == "update_time") {
    out.order = Order::kUpdateTime;
  } else if (!order.empty() && order != "display_name") {
    wrong("order_by", "must be display_name, address, create_time or update_time, with \" desc\" behind it or not");
  }
  return out;
}

std::string ArgumentsOf(const v1::ListMailboxesRequest& request) {
  v1::ListMailboxesRequest arguments = request;
  arguments.clear_page_size();
  arguments.clear_page_token();
  return "mailboxes\n" + arguments.SerializeAsString();
}

}  // namespace poststelle::config
