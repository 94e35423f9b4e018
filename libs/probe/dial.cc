#include "libs/probe/dial.h"

#include <vector>

#include "absl/strings/str_join.h"

namespace poststelle::probe {

async::Task<absl::StatusOr<std::unique_ptr<net::Stream>>> Dial(net::Dialer& dialer, std::string host, uint16_t port,
                                                               absl::Duration timeout, StepLog& log) {
  net::Dialer::OnAddresses on_addresses = [&log](const std::vector<asio::ip::address>& addresses) {
    log.Detail(absl::StrJoin(
        addresses, ", ", [](std::string* out, const asio::ip::address& address) { out->append(address.to_string()); }));
    log.Begin(Step::KIND_CONNECT);
  };
  absl::StatusOr<std::unique_ptr<net::Stream>> stream = co_await dialer.Dial(host, port, timeout, on_addresses);
  if (stream.ok()) {
    log.Detail((*stream)->remote_address());
  } else if (net::GetNetError(stream.status()) == net::NetError::kEgress) {
    log.Begin(Step::KIND_CONNECT);
  }
  co_return stream;
}

}  // namespace poststelle::probe
