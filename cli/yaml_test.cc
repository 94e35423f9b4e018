#include "cli/yaml.h"

#include <gtest/gtest.h>

#include "google/protobuf/util/message_differencer.h"
#include "poststelle/config/v1/mailbox.pb.h"

namespace poststelle::cli {
namespace {

using config::v1::Mailbox;

constexpr const char* kGood = R"(kind: Mailbox
name: mailboxes/support
displayName: Support
direction: inbound
connection: {protocol: imap, host: imap.example.org, encryption: starttls}
password_authentication:
  password: {env: SECRET}
importOptions:
  fetchInterval: 1m30s
  folders: [INBOX, "Ä: b"]
  afterImport: {action: move, targetFolder: Done}
labels: {team: "1", on: yes}
enabled: true
)";

std::string ErrorOf(const std::string& text) {
  auto read = ReadDocuments(text, "f");
  return read.ok() ? "none" : std::string(read.status().message());
}

TEST(Yaml, ADocumentIsTheMessage) {
  auto read = ReadDocuments(std::string(kGood) + "---\n---\nkind: Label\nname: labels/vip\ngermanName: Wichtig\n", "f");
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), 2U);
  const auto& mailbox = dynamic_cast<const Mailbox&>(*(*read)[0].message);
  EXPECT_EQ(mailbox.direction(), Mailbox::DIRECTION_INBOUND);
  EXPECT_EQ(mailbox.connection().encryption(), config::v1::Connection::ENCRYPTION_STARTTLS);
  EXPECT_EQ(mailbox.import_options().fetch_interval().seconds(), 90);
  EXPECT_EQ(mailbox.import_options().folders(1), "Ä: b");
  EXPECT_EQ(mailbox.import_options().after_import().target_folder(), "Done");
  EXPECT_EQ(mailbox.labels().at("on"), "yes");
  EXPECT_TRUE(mailbox.password_authentication().password().empty());
  ASSERT_EQ((*read)[0].secrets.size(), 1U);
  EXPECT_EQ((*read)[0].secrets[0].variable, "SECRET");
  EXPECT_EQ((*read)[1].where, "f:16:1");
}

TEST(Yaml, WhatIsWrittenReadsBackAsTheSame) {
  auto read = ReadDocuments(kGood, "f");
  ASSERT_TRUE(read.ok());
  auto& mailbox = dynamic_cast<Mailbox&>(*(*read)[0].message);
  mailbox.set_display_name("true");
  mailbox.set_address("\"quoted\" \t # and: more\\");
  mailbox.mutable_connection()->set_ca_certificates_pem("-----BEGIN\nabc\n-----END\n");
  mailbox.mutable_import_options()->add_folders("~");
  mailbox.mutable_import_options()->add_folders("123");
  mailbox.mutable_import_options()->add_folders("a\nb");
  mailbox.mutable_password_authentication()->set_password_set(true);
  auto again = ReadDocuments(WriteDocument("Mailbox", mailbox, "VARIABLE"), "g");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ((*again)[0].secrets[0].variable, "VARIABLE");
  mailbox.mutable_password_authentication()->set_password_set(false);
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(mailbox, *(*again)[0].message))
      << (*again)[0].message->DebugString();
}

TEST(Yaml, MistakesAreNamedByLineAndColumn) {
  EXPECT_EQ(ErrorOf("kind: Mailbox\nnmae: x\n").substr(0, 25), "f:2:1: unknown key \"nmae\"");
  EXPECT_EQ(ErrorOf("name: x\n"), "f:1:1: the key kind is missing: Mailbox, TicketStatus or Label");
  EXPECT_EQ(ErrorOf("kind: Box\n"), "f:1:7: kind must be Mailbox, TicketStatus or Label");
  EXPECT_EQ(ErrorOf("- kind: Mailbox\n"), "f:1:1: a document must be a map with the key kind");
  EXPECT_EQ(ErrorOf("kind: Mailbox\nenabled: 1\n"), "f:2:10: enabled must be true or false");
  EXPECT_EQ(ErrorOf("kind: Mailbox\nconnection: {port: 99999999999}\n"), "f:2:20: port must be a whole number");
  EXPECT_EQ(ErrorOf("kind: Mailbox\nconnection: {port: {a: b}}\n"), "f:2:20: port must be a single value");
  EXPECT_EQ(ErrorOf("kind: Mailbox\nconnection: imap.example.org\n"), "f:2:13: must be a map");
  EXPECT_EQ(ErrorOf("kind: Mailbox\ndirection: both\n"), "f:2:12: direction must be one of inbound, outbound");
  EXPECT_EQ(ErrorOf("kind: Mailbox\nimportOptions: {folders: INBOX}\n"), "f:2:26: folders must be a list");
  EXPECT_EQ(ErrorOf("kind: Mailbox\nimportOptions: {fetchInterval: soon}\n"),
            "f:2:32: must be a duration like 30s or 5m");
  EXPECT_EQ(ErrorOf("kind: Mailbox\netag: x\n"), "f:2:1: \"etag\" is set by the service; leave it out");
  EXPECT_EQ(ErrorOf("kind: Mailbox\npasswordAuthentication: {password: geheim}\n"),
            "f:2:36: a password is never written here: give {env: VARIABLE} or {file: PATH}");
  EXPECT_EQ(ErrorOf("kind: Mailbox\nname: a\nname: b\n"), "f:3:1: \"name\" is there twice");
  EXPECT_EQ(ErrorOf("kind: Mailbox\nlabels: {a: [b]}\n").substr(0, 5), "f:2:1");
  EXPECT_EQ(ErrorOf("kind: [\n").substr(0, 2), "f:");
  EXPECT_EQ(ErrorOf("kind: Mailbox\nlabels: *nobody\n").substr(0, 4), "f:2:");
}

TEST(Yaml, AliasBombsAreCounted) {
  std::string bomb = "kind: Mailbox\nimportOptions:\n  folders:\n  - &a [x,x,x,x,x,x,x,x,x,x]\n";
  for (char c = 'b'; c <= 'k'; ++c) {
    bomb += std::string("  - &") + c + " [";
    for (int i = 0; i < 10; ++i) bomb += std::string(i ? "," : "") + "*" + static_cast<char>(c - 1);
    bomb += "]\n";
  }
  EXPECT_EQ(ErrorOf(bomb), "f:4:5: folders must be a single value");
  std::string wide = "kind: Mailbox\nimportOptions:\n  folders: &f\n";
  for (int i = 0; i < 100'000; ++i) wide += "  - x\n";
  std::string many;
  for (int i = 0; i < 11; ++i) many += "---\n" + wide;
  EXPECT_NE(ErrorOf(many).find("more than a million nodes"), std::string::npos);
  std::string deep = "kind: Mailbox\nconnection: ";
  for (int i = 0; i < 2000; ++i) deep += "{connection: ";
  EXPECT_EQ(ErrorOf(deep).substr(0, 2), "f:");
}

}  // namespace
}  // namespace poststelle::cli
