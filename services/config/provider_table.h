// What is known about mail providers: providers.json, which the program carries.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "poststelle/config/v1/mailbox_service.pb.h"
#include "services/config/provider_table.pb.h"

namespace poststelle::config {

// The file's text, as it was at build time.
extern const std::string_view kProvidersJson;

// Names are compared without regard to case. Pointers live as long as the table; null: unknown. Immutable.
class ProviderTable {
 public:
  // The table of this program.
  static const ProviderTable& Get();
  // kInvalidArgument, with the place, for what is no table.
  static absl::StatusOr<ProviderTable> Parse(std::string_view json);

  // The provider whose own domain (in ASCII form) this is.
  const ProviderEntry* ByDomain(const std::string& domain) const;
  // The provider that this host, of an MX record, belongs to.
  const ProviderEntry* ByMailExchanger(const std::string& host) const;
  // The provider that this server belongs to. Of several that share it, the one of the address, else the first.
  const ProviderEntry* ByServer(const std::string& host, const std::string& address) const;
  // Whether one provider has both servers: a password given for one of them is known to the other.
  bool SameProvider(const std::string& host, const std::string& other) const;

  const ProviderTableData& data() const { return data_; }

 private:
  ProviderTableData data_;
  std::map<std::string, int> domains_;                // to the index of the provider
  std::multimap<std::string, int> servers_;           // the same; in the order of the file for each
  std::vector<std::pair<std::string, int>> mx_ends_;  // ".gmx.net", to the same
};

enum class Direction { kInbound, kOutbound };

// How the provider is reached, by preference. `mail_exchanger` stands for `{mx}`; without one such servers are left
// out.
std::vector<v1::Connection> ConnectionsOf(const ProviderEntry& entry, Direction direction,
                                          const std::string& mail_exchanger = "");
// What password it takes.
ProviderEntry::SignIn SignInOf(const ProviderEntry& entry, Direction direction);
// Zero: it says nothing.
absl::Duration MinFetchInterval(const ProviderEntry& entry);
// The name to sign in with.
std::string LoginNameOf(const ProviderEntry& entry, const std::string& address);
// For an answer.
v1::Provider ToApi(const ProviderEntry& entry);

// What is behind the last @, in lower case; empty without one.
std::string DomainOf(const std::string& address);

}  // namespace poststelle::config
