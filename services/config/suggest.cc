#include "services/config/suggest.h"

#include <idn2.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "libs/base/host_name.h"
#include "libs/observe/log.h"
#include "libs/rpc/status.h"
#include "services/config/mailbox_validator.h"
#include "services/config/provider_table.h"
#include "services/config/warnings.h"

namespace poststelle::config {
namespace {

using Response = v1::SuggestSettingsResponse;

void Append(const std::vector<v1::Connection>& from, google::protobuf::RepeatedPtrField<v1::Connection>& to) {
  for (const v1::Connection& connection : from) {
    *to.Add() = connection;
    if (connection.port() == 0) to.rbegin()->set_port(UsualPort(connection));
  }
}

// What is known of the provider itself.
void AddProvider(const ProviderEntry& entry, const std::string& address, Response& response) {
  *response.mutable_provider() = ToApi(entry);
  response.set_login_name(LoginNameOf(entry, address));
  std::optional<v1::Warning> warning = SignInWarning(entry, Direction::kInbound);
  if (warning) *response.add_warnings() = *std::move(warning);
}

void AddServers(const ProviderEntry& entry, const std::string& mail_exchanger, Response& response) {
  Append(ConnectionsOf(entry, Direction::kInbound, mail_exchanger), *response.mutable_inbound());
  Append(ConnectionsOf(entry, Direction::kOutbound, mail_exchanger), *response.mutable_outbound());
}

void Guess(const std::string& domain, Response& response) {
  response.set_source(Response::SOURCE_GUESS);
  v1::Connection connection;
  connection.set_encryption(v1::Connection::ENCRYPTION_TLS);
  connection.set_protocol(v1::Connection::PROTOCOL_IMAP);
  connection.set_host("imap." + domain);
  Append({connection}, *response.mutable_inbound());
  connection.set_protocol(v1::Connection::PROTOCOL_SMTP);
  connection.set_host("smtp." + domain);
  Append({connection}, *response.mutable_outbound());
}

// The provider of the servers that the domain announces, if they are those of one in the table.
const ProviderEntry* ProviderOf(const fetcher::v1::LookUpServersResponse& found) {
  for (const auto* servers : {&found.inbound(), &found.outbound()}) {
    if (servers->empty()) continue;
    return ProviderTable::Get().ByServer(servers->Get(0).host(), "");
  }
  return nullptr;
}

void FromRecords(const fetcher::v1::LookUpServersResponse& found, const std::string& domain, const std::string& address,
                 Response& response) {
  if (!found.inbound().empty() || !found.outbound().empty()) {
    response.set_source(Response::SOURCE_DNS_SRV);
    *response.mutable_inbound() = found.inbound();
    *response.mutable_outbound() = found.outbound();
    if (const ProviderEntry* entry = ProviderOf(found)) AddProvider(*entry, address, response);
    return;
  }
  for (const std::string& host : found.mail_exchangers()) {
    const ProviderEntry* entry = ProviderTable::Get().ByMailExchanger(host);
    if (entry == nullptr) continue;
    response.set_source(Response::SOURCE_DNS_MX);
    AddProvider(*entry, address, response);
    AddServers(*entry, host, response);
    return;
  }
  Guess(domain, response);
}

}  // namespace

absl::StatusOr<std::string> AsciiDomainOf(const std::string& address) {
  const absl::Status wrong =
      absl::InvalidArgumentError("must be a mail address like support@example.org, at most 254 bytes");
  if (!IsAddress(address)) return wrong;
  const std::string domain = address.substr(address.rfind('@') + 1);
  char* ascii = nullptr;
  const int result = idn2_to_ascii_8z(domain.c_str(), &ascii, IDN2_NONTRANSITIONAL);
  const std::unique_ptr<char, decltype(&idn2_free)> owned(ascii, idn2_free);
  if (result != IDN2_OK || !IsHostName(ascii)) return wrong;
  return std::string(ascii);
}

async::Task<grpc::Status> Suggest(ServerLookup& lookup, const v1::SuggestSettingsRequest& request, Response& response) {
  const std::string& address = request.address();
  absl::StatusOr<std::string> domain = AsciiDomainOf(address);
  if (!domain.ok()) co_return rpc::InvalidFields({{"address", std::string(domain.status().message())}});
  response.set_login_name(address);
  if (const ProviderEntry* entry = ProviderTable::Get().ByDomain(*domain)) {
    response.set_source(Response::SOURCE_PROVIDER);
    AddProvider(*entry, address, response);
    AddServers(*entry, "", response);
    co_return grpc::Status::OK;
  }
  auto found = co_await lookup.LookUpServers(*domain);
  if (found.ok()) {
    FromRecords(*found, *domain, address, response);
  } else {
    observe::Log(observe::Level::kInfo, "suggest.lookup_failed", {{"error", std::string(found.status().message())}});
    Guess(*domain, response);
    *response.add_warnings() = LookupFailedWarning();
  }
  co_return grpc::Status::OK;
}

}  // namespace poststelle::config
