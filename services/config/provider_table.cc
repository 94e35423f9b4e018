#include "services/config/provider_table.h"

#include <google/protobuf/util/json_util.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "libs/base/sv.h"

namespace poststelle::config {
namespace {

constexpr char kMailExchanger[] = "{mx}";

void Index(const std::string& host, int provider, std::multimap<std::string, int>& servers) {
  if (host != kMailExchanger) servers.emplace(absl::AsciiStrToLower(host), provider);
}

}  // namespace

const ProviderTable& ProviderTable::Get() {
  // A table that can't be read is a defect of the build, which provider_table_test finds.
  static const ProviderTable* const table = new ProviderTable(Parse(kProvidersJson).value());
  return *table;
}

absl::StatusOr<ProviderTable> ProviderTable::Parse(std::string_view json) {
  ProviderTable table;
  const auto parsed = google::protobuf::util::JsonStringToMessage(std::string(json), &table.data_);
  if (!parsed.ok()) return absl::InvalidArgumentError(std::string(parsed.message()));
  for (int i = 0; i < table.data_.providers_size(); ++i) {
    const ProviderEntry& entry = table.data_.providers(i);
    for (const std::string& domain : entry.domains()) {
      if (!table.domains_.emplace(domain, i).second) {
        return absl::InvalidArgumentError(absl::StrCat(entry.id(), ": the domain ", domain, " is another provider's"));
      }
    }
    for (const std::string& end : entry.mx_suffixes()) table.mx_ends_.emplace_back("." + end, i);
    for (const ProviderServer& server : entry.imap()) Index(server.host(), i, table.servers_);
    for (const ProviderServer& server : entry.smtp()) Index(server.host(), i, table.servers_);
    for (const std::string& host : entry.other_hosts()) Index(host, i, table.servers_);
  }
  return table;
}

const ProviderEntry* ProviderTable::ByDomain(const std::string& domain) const {
  const auto found = domains_.find(absl::AsciiStrToLower(domain));
  return found == domains_.end() ? nullptr : &data_.providers(found->second);
}

const ProviderEntry* ProviderTable::ByMailExchanger(const std::string& host) const {
  const std::string dotted = "." + absl::AsciiStrToLower(host);
  for (const auto& [end, provider] : mx_ends_) {
    if (absl::EndsWith(dotted, end)) return &data_.providers(provider);
  }
  return nullptr;
}

const ProviderEntry* ProviderTable::ByServer(const std::string& host, const std::string& address) const {
  const ProviderEntry* of_address = ByDomain(DomainOf(address));
  const auto [begin, end] = servers_.equal_range(absl::AsciiStrToLower(host));
  for (auto it = begin; it != end; ++it) {
    if (&data_.providers(it->second) == of_address) return of_address;
  }
  return begin == end ? nullptr : &data_.providers(begin->second);
}

bool ProviderTable::SameProvider(const std::string& host, const std::string& other) const {
  const auto [begin, end] = servers_.equal_range(absl::AsciiStrToLower(host));
  const auto [other_begin, other_end] = servers_.equal_range(absl::AsciiStrToLower(other));
  for (auto it = begin; it != end; ++it) {
    for (auto with = other_begin; with != other_end; ++with) {
      if (it->second == with->second) return true;
    }
  }
  return false;
}

std::vector<v1::Connection> ConnectionsOf(const ProviderEntry& entry, Direction direction,
                                          const std::string& mail_exchanger) {
  const bool inbound = direction == Direction::kInbound;
  std::vector<v1::Connection> out;
  for (const ProviderServer& server : inbound ? entry.imap() : entry.smtp()) {
    const std::string& host = server.host() == kMailExchanger ? mail_exchanger : server.host();
    if (host.empty()) continue;
    v1::Connection connection;
    connection.set_protocol(inbound ? v1::Connection::PROTOCOL_IMAP : v1::Connection::PROTOCOL_SMTP);
    connection.set_host(absl::AsciiStrToLower(host));
    connection.set_encryption(server.encryption() == ProviderServer::TLS ? v1::Connection::ENCRYPTION_TLS
                                                                         : v1::Connection::ENCRYPTION_STARTTLS);
    connection.set_port(server.port());
    out.push_back(std::move(connection));
  }
  return out;
}

ProviderEntry::SignIn SignInOf(const ProviderEntry& entry, Direction direction) {
  const bool differs =
      direction == Direction::kOutbound && entry.outbound_sign_in() != ProviderEntry::SIGN_IN_UNSPECIFIED;
  return differs ? entry.outbound_sign_in() : entry.sign_in();
}

absl::Duration MinFetchInterval(const ProviderEntry& entry) {
  return absl::Seconds(entry.min_fetch_interval().seconds());
}

std::string LoginNameOf(const ProviderEntry& entry, const std::string& address) {
  return entry.login() == ProviderEntry::LOCAL_PART ? address.substr(0, address.rfind('@')) : address;
}

v1::Provider ToApi(const ProviderEntry& entry) {
  v1::Provider out;
  out.set_id(entry.id());
  out.set_display_name(entry.display_name());
  if (entry.has_min_fetch_interval()) *out.mutable_min_fetch_interval() = entry.min_fetch_interval();
  out.set_max_connections(entry.max_connections());
  *out.mutable_notes() = entry.notes();
  out.set_password_sign_in(entry.sign_in() != ProviderEntry::NO_PASSWORD);
  out.set_source_url(entry.source_url());
  return out;
}

std::string DomainOf(const std::string& address) {
  const size_t at = address.rfind('@');
  return at == std::string::npos ? "" : absl::AsciiStrToLower(address.substr(at + 1));
}

}  // namespace poststelle::config
