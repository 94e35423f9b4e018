#include "services/config/provider_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "libs/base/host_name.h"

namespace poststelle::config {
namespace {

using ::testing::HasSubstr;

const ProviderTable& Table() { return ProviderTable::Get(); }

std::string IdOf(const ProviderEntry* entry) { return entry == nullptr ? "" : entry->id(); }

bool IsLowerHostName(const std::string& name) { return IsHostName(name) && absl::AsciiStrToLower(name) == name; }

// What is wrong with an entry of the file, in words; nothing if it is as its form demands.
std::vector<std::string> Problems(const ProviderEntry& entry) {
  std::vector<std::string> out;
  auto demand = [&](bool good, const std::string& what) {
    if (!good) out.push_back(absl::StrCat(entry.id(), ": ", what));
  };
  demand(
      !entry.id().empty() && entry.id().find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos,
      "id");
  demand(!entry.display_name().empty(), "displayName");
  demand(!entry.domains().empty() || !entry.mx_suffixes().empty(), "neither domain nor MX: it can't be found");
  for (const auto* names : {&entry.domains(), &entry.mx_suffixes(), &entry.other_hosts()}) {
    for (const std::string& name : *names) demand(IsLowerHostName(name), absl::StrCat("\"", name, "\" is no name"));
  }
  for (const auto* servers : {&entry.imap(), &entry.smtp()}) {
    for (const ProviderServer& server : *servers) {
      demand(IsLowerHostName(server.host()) || (server.host() == "{mx}" && !entry.mx_suffixes().empty()),
             absl::StrCat("\"", server.host(), "\" is no host"));
      demand(server.port() >= 0 && server.port() <= 65535, absl::StrCat(server.port(), " is no port"));
    }
  }
  demand(entry.imap().empty() == entry.smtp().empty(), "only one of imap and smtp");
  demand(entry.imap_size() > 0 || !entry.notes().empty(), "no servers, and no note that says why");
  demand(entry.sign_in() != ProviderEntry::SIGN_IN_UNSPECIFIED, "signIn");
  demand(entry.sign_in() == ProviderEntry::PASSWORD || !entry.notes().empty(), "no note on how to sign in");
  demand(entry.min_fetch_interval().seconds() >= 0 && entry.min_fetch_interval().seconds() <= 86400 &&
             entry.min_fetch_interval().nanos() == 0,
         "minFetchInterval");
  demand(entry.max_connections() >= 0, "maxConnections");
  for (const v1::LocalizedText& note : entry.notes()) {
    for (const std::string& text : {note.de(), note.en()}) {
      demand(text.size() > 20 && absl::EndsWith(text, "."), absl::StrCat("\"", text, "\" is no sentence"));
    }
    demand(note.de() != note.en(), "a note that is the same in both languages");
  }
  demand(absl::StartsWith(entry.source_url(), "https://"), "sourceUrl");
  return out;
}

TEST(Providers, TheFileIsWellFormed) {
  const absl::StatusOr<ProviderTable> table = ProviderTable::Parse(kProvidersJson);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_GE(table->data().providers_size(), 30);
  std::set<std::string> ids;
  std::set<std::string> ends;
  for (const ProviderEntry& entry : table->data().providers()) {
    EXPECT_THAT(Problems(entry), ::testing::IsEmpty());
    EXPECT_TRUE(ids.insert(entry.id()).second) << entry.id() << " is there twice";
    for (const std::string& end : entry.mx_suffixes()) EXPECT_TRUE(ends.insert(end).second) << end << " is there twice";
  }
}

TEST(Providers, AFileThatIsNotIsRefused) {
  for (const auto& [json, words] : std::map<std::string, std::string>{
           {R"({"providers": [{"id": "x", "domain": ["example.org"]}]})", "domain"},
           {R"({"providers": [{"id": "x", "maxConnections": "many"}]})", "many"},
           {R"({"providers": [{"id": "x", "signIn": "MAYBE"}]})", "MAYBE"},
           {R"({"providers": [{"id": "x", "domains": ["example.org"]}, {"id": "y", "domains": ["example.org"]}]})",
            "y: the domain example.org"},
           {"{", ""}}) {
    const absl::StatusOr<ProviderTable> table = ProviderTable::Parse(json);
    EXPECT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument) << json;
    EXPECT_THAT(std::string(table.status().message()), HasSubstr(words)) << json;
  }
}

TEST(Providers, AnEntryThatIsNotAsItShouldBeIsFound) {
  const ProviderEntry good = *Table().ByDomain("gmx.net");
  auto broken = [&good](auto change) {
    ProviderEntry entry = good;
    change(entry);
    return Problems(entry).size();
  };
  EXPECT_EQ(broken([](ProviderEntry&) {}), 0);
  EXPECT_GT(broken([](ProviderEntry& e) { e.mutable_imap(0)->set_host("imap gmx.net"); }), 0);
  EXPECT_GT(broken([](ProviderEntry& e) { e.clear_smtp(); }), 0);
  EXPECT_GT(broken([](ProviderEntry& e) { e.mutable_notes(0)->clear_en(); }), 0);
  EXPECT_GT(broken([](ProviderEntry& e) { e.set_source_url("http://example.org"); }), 0);
  EXPECT_GT(broken([](ProviderEntry& e) { e.add_domains("GMX.example"); }), 0);
  EXPECT_GT(broken([](ProviderEntry& e) { e.clear_sign_in(); }), 0);
}

TEST(Providers, AreFoundByTheDomainOfAnAddress) {
  for (const auto& [domain, id] : std::map<std::string, std::string>{{"gmx.de", "gmx"},
                                                                     {"GMX.net", "gmx"},
                                                                     {"web.de", "web-de"},
                                                                     {"googlemail.com", "google"},
                                                                     {"hotmail.de", "outlook"},
                                                                     {"t-online.de", "t-online"},
                                                                     {"me.com", "icloud"},
                                                                     {"example.org", ""},
                                                                     {"notgmx.de", ""},
                                                                     {"sub.gmx.de", ""}}) {
    EXPECT_EQ(IdOf(Table().ByDomain(domain)), id) << domain;
  }
}

TEST(Providers, AreFoundByWhoReceivesTheMail) {
  for (const auto& [host, id] :
       std::map<std::string, std::string>{{"example-org.mail.protection.outlook.com", "microsoft365"},
                                          {"Eur.Olc.Protection.Outlook.com", "outlook"},
                                          {"alt1.aspmx.l.google.com", "google"},
                                          {"smtp.google.com", "google"},
                                          {"mx01.ionos.de", "ionos"},
                                          {"smtpin.rzone.de", "strato"},
                                          {"w0123456.kasserver.com", "all-inkl"},
                                          {"rzone.de", "strato"},
                                          {"notrzone.de", ""},
                                          {"mx.example.org", ""}}) {
    EXPECT_EQ(IdOf(Table().ByMailExchanger(host)), id) << host;
  }
}

TEST(Providers, AreFoundByServer) {
  EXPECT_EQ(IdOf(Table().ByServer("IMAP.gmx.net", "support@example.org")), "gmx");
  EXPECT_EQ(IdOf(Table().ByServer("imap.example.org", "support@gmx.net")), "");
  // Two share it; the address decides.
  EXPECT_EQ(IdOf(Table().ByServer("outlook.office365.com", "support@example.org")), "microsoft365");
  EXPECT_EQ(IdOf(Table().ByServer("outlook.office365.com", "support@hotmail.com")), "outlook");
}

TEST(Providers, ServersOfOneProviderAreKnownToBeThat) {
  EXPECT_TRUE(Table().SameProvider("imap.gmx.net", "mail.GMX.net"));
  EXPECT_TRUE(Table().SameProvider("outlook.office365.com", "smtp.office365.com"));
  EXPECT_TRUE(Table().SameProvider("outlook.office365.com", "smtp-mail.outlook.com"));
  EXPECT_FALSE(Table().SameProvider("imap.gmx.net", "smtp.web.de"));
  EXPECT_FALSE(Table().SameProvider("imap.gmx.net", "evil.gmx.net"));
  EXPECT_FALSE(Table().SameProvider("imap.example.org", "smtp.example.org"));
  EXPECT_FALSE(Table().SameProvider("{mx}", "{mx}"));
}

TEST(Providers, WhereTheServerIsTheMailExchangerItIsPutIn) {
  const ProviderEntry& entry = *Table().ByMailExchanger("w0123456.kasserver.com");
  const auto servers = ConnectionsOf(entry, Direction::kInbound, "W0123456.kasserver.com");
  ASSERT_EQ(servers.size(), 1);
  EXPECT_EQ(servers[0].host(), "w0123456.kasserver.com");
  EXPECT_EQ(servers[0].protocol(), v1::Connection::PROTOCOL_IMAP);
  EXPECT_TRUE(ConnectionsOf(entry, Direction::kInbound).empty());
}

TEST(Providers, TheLoginNameIsTheAddressOrWhatIsBeforeTheAt) {
  ProviderEntry entry;
  EXPECT_EQ(LoginNameOf(entry, "a@b@example.org"), "a@b@example.org");
  entry.set_login(ProviderEntry::LOCAL_PART);
  EXPECT_EQ(LoginNameOf(entry, "a@b@example.org"), "a@b");
}

TEST(Providers, WhetherAPasswordSignsInMayDifferForSending) {
  const ProviderEntry& entry = *Table().ByMailExchanger("x.mail.protection.outlook.com");
  EXPECT_EQ(SignInOf(entry, Direction::kInbound), ProviderEntry::NO_PASSWORD);
  EXPECT_EQ(SignInOf(entry, Direction::kOutbound), ProviderEntry::PASSWORD);
  EXPECT_FALSE(ToApi(entry).password_sign_in());
}

}  // namespace
}  // namespace poststelle::config
