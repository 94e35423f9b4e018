#include "libs/net/resolver.h"

#include <arpa/inet.h>
#include <netdb.h>

#include <atomic>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "libs/net/cares_channel.h"
#include "libs/net/stream.h"

namespace poststelle::net {
namespace {

struct Query {
  explicit Query(const asio::any_io_executor& executor) : ended(executor) {}
  std::string host;
  int status = ARES_ENODATA;                 // written before `done`
  std::vector<asio::ip::address> addresses;  // written before `done`
  std::atomic<bool> done{false};
  async::Event ended;
};

void OnAddresses(void* argument, int status, int, ares_addrinfo* result) {
  std::unique_ptr<std::shared_ptr<Query>> owned(static_cast<std::shared_ptr<Query>*>(argument));
  Query& query = **owned;
  query.status = status;
  for (ares_addrinfo_node* node = result == nullptr ? nullptr : result->nodes; node != nullptr; node = node->ai_next) {
    if (node->ai_family == AF_INET) {
      const auto* in = reinterpret_cast<const sockaddr_in*>(node->ai_addr);
      query.addresses.emplace_back(asio::ip::address_v4(ntohl(in->sin_addr.s_addr)));
    } else if (node->ai_family == AF_INET6) {
      const auto* in6 = reinterpret_cast<const sockaddr_in6*>(node->ai_addr);
      asio::ip::address_v6::bytes_type bytes;
      std::memcpy(bytes.data(), &in6->sin6_addr, bytes.size());
      query.addresses.emplace_back(asio::ip::address_v6(bytes));
    }
  }
  if (result != nullptr) ares_freeaddrinfo(result);
  query.done = true;
  query.ended.Notify();
}

// The address that `host` is by itself.
std::optional<asio::ip::address> ParseLiteral(const std::string& host) {
  asio::error_code error;
  asio::ip::address address = asio::ip::make_address(host, error);
  if (!error) return address;
  in_addr old{};  // the spellings of old: fewer than four numbers, octal, hexadecimal
  if (inet_aton(host.c_str(), &old) != 0) return asio::ip::address_v4(ntohl(old.s_addr));
  return std::nullopt;
}

// Begins the query on the channel's thread.
void Begin(const std::shared_ptr<Query>& query, ares_channel channel) {
  auto* owned = new std::shared_ptr<Query>(query);  // OnAddresses takes it back
  if (channel == nullptr) {
    OnAddresses(owned, ARES_ENOTINITIALIZED, 0, nullptr);
    return;
  }
  ares_addrinfo_hints hints{};
  hints.ai_family = AF_UNSPEC;
  ares_getaddrinfo(channel, query->host.c_str(), nullptr, &hints, OnAddresses, owned);
}

class CaresResolver : public Resolver {
 public:
  CaresResolver(asio::any_io_executor executor, const std::string& name_servers)
      : executor_(std::move(executor)), channel_(name_servers) {}

  async::Task<absl::StatusOr<std::vector<asio::ip::address>>> Resolve(std::string host,
                                                                      absl::Duration timeout) override {
    if (std::optional<asio::ip::address> literal = ParseLiteral(host)) {
      co_return std::vector<asio::ip::address>{*literal};
    }
    auto query = std::make_shared<Query>(executor_);
    query->host = host;
    channel_.Ask([query](ares_channel channel) { Begin(query, channel); });
    const absl::Time deadline = absl::Now() + timeout;
    while (!query->done) {
      const absl::Status waited = co_await query->ended.Wait(deadline - absl::Now());
      if (absl::IsCancelled(waited)) co_return MakeNetError(NetError::kCancelled, "the name lookup was cancelled");
      if (absl::IsDeadlineExceeded(waited) && !query->done) {
        co_return MakeNetError(NetError::kTimeout, absl::StrCat("looking up the name ", host, " took longer than ",
                                                                absl::FormatDuration(timeout)));
      }
    }
    if (query->addresses.empty()) {
      co_return MakeNetError(NetError::kResolve,
                             absl::StrCat("the name ", host, " has no address (", ares_strerror(query->status), ")."));
    }
    co_return query->addresses;
  }

 private:
  const asio::any_io_executor executor_;
  CaresChannel channel_;
};

}  // namespace

std::unique_ptr<Resolver> MakeResolver(asio::any_io_executor executor, const std::string& name_servers) {
  return std::make_unique<CaresResolver>(std::move(executor), name_servers);
}

absl::Status CheckNameServer(const std::string& name_server) {
  ares_channel channel = nullptr;
  if (ares_init(&channel) != ARES_SUCCESS) return absl::InternalError("c-ares can't be set up");
  const bool good = !name_server.empty() && ares_set_servers_ports_csv(channel, name_server.c_str()) == ARES_SUCCESS;
  ares_destroy(channel);
  return good ? absl::OkStatus()
              : absl::InvalidArgumentError(absl::StrCat("\"", name_server,
                                                        "\" is no name server: give its IP address, "
                                                        "and a port where it is not 53"));
}

}  // namespace poststelle::net
