#include "services/config/mailbox_validator.h"

#include <gtest/gtest.h>

#include "services/config/mailbox_merge.h"
#include "services/config/mailbox_selection.h"

namespace poststelle::config {
namespace {

v1::Mailbox Good() {
  v1::Mailbox mailbox;
  mailbox.set_display_name("Support");
  mailbox.set_direction(v1::Mailbox::DIRECTION_INBOUND);
  mailbox.set_address("support@example.org");
  mailbox.mutable_connection()->set_protocol(v1::Connection::PROTOCOL_IMAP);
  mailbox.mutable_connection()->set_host("imap.example.org");
  mailbox.mutable_password_authentication()->set_password("secret");
  return mailbox;
}

TEST(Validator, FillsInTheDefaults) {
  v1::Mailbox mailbox = Good();
  EXPECT_TRUE(CompleteAndValidate(mailbox, absl::Minutes(1), Passwords::kRequired).empty());
  EXPECT_EQ(mailbox.connection().port(), 993);
  EXPECT_EQ(mailbox.connection().encryption(), v1::Connection::ENCRYPTION_TLS);
  EXPECT_EQ(mailbox.import_options().max_age_days(), 30);
  EXPECT_EQ(mailbox.import_options().fetch_interval().seconds(), 300);
  EXPECT_EQ(mailbox.import_options().folders(0), "INBOX");
}

TEST(Validator, NamesEveryBadFieldAtOnce) {
  v1::Mailbox mailbox = Good();
  mailbox.set_display_name("a\nb");
  mailbox.set_address("nobody");
  mailbox.mutable_connection()->set_host("");
  mailbox.mutable_connection()->set_port(70000);
  mailbox.mutable_connection()->set_ca_certificates_pem("x");
  mailbox.mutable_password_authentication()->set_password("a\r\nb");
  mailbox.mutable_import_options()->set_max_age_days(4000);
  mailbox.mutable_import_options()->mutable_fetch_interval()->set_seconds(5);
  std::vector<std::string> fields;
  for (const rpc::Violation& v : CompleteAndValidate(mailbox, absl::Minutes(1), Passwords::kRequired))
    fields.push_back(v.field);
  EXPECT_EQ(fields, (std::vector<std::string>{
                        "mailbox.display_name", "mailbox.address", "mailbox.connection.host", "mailbox.connection.port",
                        "mailbox.connection.ca_certificates_pem", "mailbox.password_authentication.password",
                        "mailbox.import_options.max_age_days", "mailbox.import_options.fetch_interval"}));
}

TEST(Validator, AWrongEnumHidesNoOtherMistake) {
  v1::Mailbox mailbox = Good();
  mailbox.set_direction(static_cast<v1::Mailbox::Direction>(999));
  v1::ImportOptions& options = *mailbox.mutable_import_options();
  options.set_max_age_days(4000);
  options.mutable_after_import()->set_action(static_cast<v1::AfterImport::Action>(999));
  options.mutable_after_import()->set_target_folder("a\rb");
  std::vector<std::string> fields;
  for (const rpc::Violation& v : CompleteAndValidate(mailbox, absl::Minutes(1), Passwords::kRequired))
    fields.push_back(v.field);
  EXPECT_EQ(fields, (std::vector<std::string>{"mailbox.direction", "mailbox.import_options.max_age_days",
                                              "mailbox.import_options.after_import.action",
                                              "mailbox.import_options.after_import.target_folder"}));
}

TEST(Validator, APasswordIsNotSentElsewhereWithoutBeingGivenAgain) {
  v1::Mailbox before = Good();
  before.mutable_connection()->set_encryption(v1::Connection::ENCRYPTION_STARTTLS);
  auto elsewhere = [&before](auto change) {
    v1::Mailbox after = before;
    change(*after.mutable_connection());
    return SendsPasswordElsewhere(before, after);
  };
  EXPECT_TRUE(elsewhere([](v1::Connection& c) { c.set_host("imap.example.com"); }));
  EXPECT_TRUE(elsewhere([](v1::Connection& c) { c.set_encryption(v1::Connection::ENCRYPTION_NONE); }));
  EXPECT_TRUE(elsewhere([](v1::Connection& c) { c.set_ca_certificates_pem("another"); }));
  EXPECT_FALSE(elsewhere([](v1::Connection&) {}));
  EXPECT_FALSE(elsewhere([](v1::Connection& c) { c.set_host("IMAP.example.org"); }));
  EXPECT_FALSE(elsewhere([](v1::Connection& c) { c.set_port(1993); }));
  EXPECT_FALSE(elsewhere([](v1::Connection& c) { c.set_encryption(v1::Connection::ENCRYPTION_TLS); }));
}

TEST(Validator, NamesAreComparedFoldedAndNormalised) {
  EXPECT_EQ(NameKey("BÜRO"), NameKey("büro"));
  EXPECT_EQ(NameKey("Bu\xCC\x88ro"), NameKey("büro"));
  EXPECT_NE(NameKey("a"), NameKey("b"));
}

TEST(Merge, ChangesWhatTheMaskNamesAndKeepsThePassword) {
  v1::Mailbox stored = Good();
  v1::Mailbox update;
  update.set_display_name("Sales");
  update.mutable_connection()->set_host("mail.example.org");
  google::protobuf::FieldMask mask;
  mask.add_paths("connection.host");
  EXPECT_TRUE(Merge(update, mask, stored).empty());
  EXPECT_EQ(stored.display_name(), "Support");
  EXPECT_EQ(stored.connection().host(), "mail.example.org");
  EXPECT_EQ(stored.connection().protocol(), v1::Connection::PROTOCOL_IMAP);
  mask.add_paths("no_such_field");
  EXPECT_EQ(Merge(update, mask, stored).at(0).field, "update_mask");
}

TEST(Merge, WithoutAMaskWhatIsSetChanges) {
  v1::Mailbox stored = Good();
  stored.mutable_import_options()->set_max_age_days(30);
  v1::Mailbox update;
  update.mutable_import_options()->set_also_fetch_read(true);
  EXPECT_TRUE(Merge(update, {}, stored).empty());
  EXPECT_TRUE(stored.import_options().also_fetch_read());
  EXPECT_EQ(stored.import_options().max_age_days(), 30);
  EXPECT_EQ(stored.display_name(), "Support");
}

TEST(Merge, WithoutAMaskListsAndMapsAreReplaced) {
  v1::Mailbox stored = Good();
  stored.mutable_import_options()->add_folders("INBOX");
  stored.mutable_import_options()->mutable_fetch_interval()->set_nanos(500'000'000);
  (*stored.mutable_labels())["team"] = "x";
  v1::Mailbox update;
  update.mutable_import_options()->add_folders("INBOX");
  update.mutable_import_options()->mutable_fetch_interval()->set_seconds(60);
  (*update.mutable_labels())["floor"] = "2";
  EXPECT_TRUE(Merge(update, {}, stored).empty());
  EXPECT_EQ(stored.import_options().folders_size(), 1);
  EXPECT_EQ(stored.import_options().fetch_interval().nanos(), 0);
  ASSERT_EQ(stored.labels().size(), 1u);
  EXPECT_EQ(stored.labels().at("floor"), "2");
}

TEST(Merge, APathThatIsNoneHidesNoOtherMistake) {
  v1::Mailbox stored = Good();
  v1::Mailbox update;
  update.set_direction(v1::Mailbox::DIRECTION_OUTBOUND);
  update.set_display_name("a\nb");
  google::protobuf::FieldMask mask;
  mask.add_paths(std::string(70'000, 'a'));
  mask.add_paths("display_name");
  const std::vector<rpc::Violation> violations = Merge(update, mask, stored);
  ASSERT_EQ(violations.size(), 2u);
  EXPECT_EQ(violations[0].field, "update_mask");
  EXPECT_LT(violations[0].description.size(), 200u);  // an answer that repeats it all would not fit into its header
  EXPECT_EQ(violations[1].field, "mailbox.direction");
  EXPECT_EQ(stored.display_name(), "a\nb");
}

TEST(Selection, ControlCharactersAreRefused) {
  v1::ListMailboxesRequest request;
  request.set_text("a\r");
  request.add_label_selectors("team=x\n");
  std::vector<rpc::Violation> violations;
  SelectionOf(request, violations);
  ASSERT_EQ(violations.size(), 2u);
  EXPECT_EQ(violations[0].field, "label_selectors");
  EXPECT_EQ(violations[1].field, "text");
}

TEST(RequestId, HasCharactersNotBytes) {
  const auto good = [](const std::string& id) {
    std::vector<rpc::Violation> violations;
    CheckRequestId(id, violations);
    return violations.empty();
  };
  std::string umlauts;
  for (int i = 0; i < 128; ++i) umlauts += "ü";
  EXPECT_TRUE(good(""));
  EXPECT_TRUE(good(umlauts));
  EXPECT_FALSE(good(umlauts + "ü"));
  EXPECT_FALSE(good("a\n"));
  EXPECT_FALSE(good(std::string("a\0", 2)));
}

}  // namespace
}  // namespace poststelle::config
