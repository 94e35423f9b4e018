#include "services/fetcher/server_lookup.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "libs/base/reason.h"

namespace poststelle::fetcher {
namespace {

using config::v1::Connection;

constexpr int kMostServers = 10;  // of each kind

struct Service {
  const char* name;
  Connection::Protocol protocol;
  Connection::Encryption encryption;
  absl::StatusOr<std::vector<net::ServiceRecord>> found = absl::UnknownError("not asked");
};

struct Exchangers {
  absl::StatusOr<std::vector<std::string>> found = absl::UnknownError("not asked");
};

async::Task<void> AskForService(net::DnsRecords& records, std::string domain, absl::Duration timeout,
                                Service& service) {
  service.found = co_await records.Services(absl::StrCat(service.name, "._tcp.", domain), timeout);
}

async::Task<void> AskForExchangers(net::DnsRecords& records, std::string domain, absl::Duration timeout,
                                   Exchangers& exchangers) {
  exchangers.found = co_await records.MailExchangers(domain, timeout);
}

void Add(const Service& service, v1::LookUpServersResponse& response) {
  auto& connections =
      service.protocol == Connection::PROTOCOL_IMAP ? *response.mutable_inbound() : *response.mutable_outbound();
  for (const net::ServiceRecord& record : *service.found) {
    if (connections.size() == kMostServers) return;
    Connection& connection = *connections.Add();
    connection.set_protocol(service.protocol);
    connection.set_host(absl::AsciiStrToLower(record.host));
    connection.set_port(record.port);
    connection.set_encryption(service.encryption);
  }
}

}  // namespace

async::Task<absl::StatusOr<v1::LookUpServersResponse>> LookUpServers(asio::any_io_executor executor,
                                                                     net::DnsRecords& records, std::string domain,
                                                                     absl::Duration timeout) {
  Service services[] = {{"_imaps", Connection::PROTOCOL_IMAP, Connection::ENCRYPTION_TLS},
                        {"_imap", Connection::PROTOCOL_IMAP, Connection::ENCRYPTION_STARTTLS},
                        {"_submissions", Connection::PROTOCOL_SMTP, Connection::ENCRYPTION_TLS},
                        {"_submission", Connection::PROTOCOL_SMTP, Connection::ENCRYPTION_STARTTLS}};
  Exchangers exchangers;
  {
    async::TaskScope scope(executor);
    for (Service& service : services) scope.Spawn(AskForService(records, domain, timeout, service));
    scope.Spawn(AskForExchangers(records, domain, timeout, exchangers));
    co_await scope.Join();
  }
  v1::LookUpServersResponse response;
  bool answered = exchangers.found.ok();
  for (const Service& service : services) {
    if (!service.found.ok()) continue;
    answered = true;
    Add(service, response);
  }
  if (exchangers.found.ok()) {
    for (const std::string& host : *exchangers.found) {
      if (response.mail_exchangers_size() < kMostServers) response.add_mail_exchangers(absl::AsciiStrToLower(host));
    }
  }
  if (!answered) {
    co_return WithReason(absl::UnavailableError(absl::StrCat("no name server answers: ",
                                                             std::string(exchangers.found.status().message()))),
                         "NAME_SERVERS_UNAVAILABLE");
  }
  co_return response;
}

}  // namespace poststelle::fetcher
