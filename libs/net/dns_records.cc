#include "libs/net/dns_records.h"

#include <arpa/nameser.h>

#include <algorithm>
#include <atomic>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "libs/base/host_name.h"
#include "libs/net/cares_channel.h"
#include "libs/net/stream.h"

namespace poststelle::net {
namespace {

struct Query {
  explicit Query(const asio::any_io_executor& executor) : ended(executor) {}
  std::string name;
  int type = 0;
  int status = ARES_ENODATA;  // written before `done`, as the records are
  std::vector<ServiceRecord> services;
  std::vector<std::pair<uint16_t, std::string>> exchangers;  // with their preference
  std::atomic<bool> done{false};
  async::Event ended;
};

void ParseServices(const unsigned char* answer, int length, Query& query) {
  ares_srv_reply* first = nullptr;
  query.status = ares_parse_srv_reply(answer, length, &first);
  for (const ares_srv_reply* record = first; record != nullptr; record = record->next) {
    if (!IsHostName(record->host) || record->port == 0) continue;
    ServiceRecord service;
    service.host = record->host;
    service.port = record->port;
    service.priority = record->priority;
    service.weight = record->weight;
    query.services.push_back(std::move(service));
  }
  ares_free_data(first);
}

void ParseExchangers(const unsigned char* answer, int length, Query& query) {
  ares_mx_reply* first = nullptr;
  query.status = ares_parse_mx_reply(answer, length, &first);
  for (const ares_mx_reply* record = first; record != nullptr; record = record->next) {
    if (IsHostName(record->host)) query.exchangers.emplace_back(record->priority, record->host);
  }
  ares_free_data(first);
}

void OnAnswer(void* argument, int status, int, unsigned char* answer, int length) {
  std::unique_ptr<std::shared_ptr<Query>> owned(static_cast<std::shared_ptr<Query>*>(argument));
  Query& query = **owned;
  query.status = status;
  if (status == ARES_SUCCESS && query.type == ns_t_srv) ParseServices(answer, length, query);
  if (status == ARES_SUCCESS && query.type == ns_t_mx) ParseExchangers(answer, length, query);
  query.done = true;
  query.ended.Notify();
}

// Begins the query on the channel's thread.
void Begin(const std::shared_ptr<Query>& query, ares_channel channel) {
  auto* owned = new std::shared_ptr<Query>(query);  // OnAnswer takes it back
  if (channel == nullptr) {
    OnAnswer(owned, ARES_ENOTINITIALIZED, 0, nullptr, 0);
    return;
  }
  ares_query(channel, query->name.c_str(), ns_c_in, query->type, OnAnswer, owned);
}

class CaresRecords : public DnsRecords {
 public:
  CaresRecords(asio::any_io_executor executor, const std::string& name_servers)
      : executor_(std::move(executor)), channel_(name_servers) {}

  async::Task<absl::StatusOr<std::vector<ServiceRecord>>> Services(std::string name, absl::Duration timeout) override {
    auto query = std::make_shared<Query>(executor_);
    query->name = std::move(name);
    query->type = ns_t_srv;
    const absl::Status asked = co_await Ask(query, timeout);
    if (!asked.ok()) co_return asked;
    std::stable_sort(query->services.begin(), query->services.end(),
                     [](const ServiceRecord& a, const ServiceRecord& b) {
                       return std::tie(a.priority, b.weight) < std::tie(b.priority, a.weight);
                     });
    co_return query->services;
  }

  async::Task<absl::StatusOr<std::vector<std::string>>> MailExchangers(std::string domain,
                                                                       absl::Duration timeout) override {
    auto query = std::make_shared<Query>(executor_);
    query->name = std::move(domain);
    query->type = ns_t_mx;
    const absl::Status asked = co_await Ask(query, timeout);
    if (!asked.ok()) co_return asked;
    std::stable_sort(query->exchangers.begin(), query->exchangers.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<std::string> hosts;
    for (const auto& [preference, host] : query->exchangers) hosts.push_back(host);
    co_return hosts;
  }

 private:
  async::Task<absl::Status> Ask(std::shared_ptr<Query> query, absl::Duration timeout) {
    channel_.Ask([query](ares_channel channel) { Begin(query, channel); });
    const absl::Time deadline = absl::Now() + timeout;
    while (!query->done) {
      const absl::Status waited = co_await query->ended.Wait(deadline - absl::Now());
      if (absl::IsCancelled(waited)) co_return MakeNetError(NetError::kCancelled, "the lookup was cancelled");
      if (absl::IsDeadlineExceeded(waited) && !query->done) {
        co_return MakeNetError(NetError::kTimeout, absl::StrCat("looking up ", query->name, " took longer than ",
                                                                absl::FormatDuration(timeout)));
      }
    }
    const int status = query->status;
    if (status == ARES_SUCCESS || status == ARES_ENODATA || status == ARES_ENOTFOUND) co_return absl::OkStatus();
    co_return MakeNetError(NetError::kResolve,
                           absl::StrCat(query->name, " can't be looked up (", ares_strerror(status), ")."));
  }

  const asio::any_io_executor executor_;
  CaresChannel channel_;
};

}  // namespace

std::unique_ptr<DnsRecords> MakeDnsRecords(asio::any_io_executor executor, const std::string& name_servers) {
  return std::make_unique<CaresRecords>(std::move(executor), name_servers);
}

}  // namespace poststelle::net
