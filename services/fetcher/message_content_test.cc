#include "services/fetcher/message_content.h"

#include <gtest/gtest.h>

#include "poststelle/fetcher/v1/ticket_feed_service.pb.h"

namespace poststelle::fetcher {
namespace {

constexpr size_t kGrpcLimit = 4 << 20;

TEST(MessageContent, TheLargestEventFitsIntoAnAnswerOfGrpc) {
  const std::string huge(3 << 20, 'x');
  const std::string long_name(2000, 'n');
  mail::ParsedMail parsed;
  parsed.set_subject(huge);
  parsed.set_message_id(huge);
  parsed.set_text(huge);
  parsed.set_html(huge);
  parsed.set_undecodable_reason(huge);
  parsed.add_from()->set_name(huge);
  parsed.mutable_from(0)->set_address(huge);
  for (int i = 0; i < 5000; ++i) {
    parsed.add_in_reply_to(long_name);
    parsed.add_references(long_name);
    for (mail::Address* a : {parsed.add_to(), parsed.add_cc(), parsed.add_reply_to()}) {
      a->set_name(long_name);
      a->set_address(long_name);
    }
    mail::Attachment* attachment = parsed.add_attachments();
    attachment->set_filename(long_name);
    attachment->set_content_type(long_name);
    attachment->set_content_id(long_name);
    attachment->set_sha256(std::string(64, 'a'));
  }
  parsed.add_references("the-parent@example.org");
  parsed.set_origin_evidence(huge);
  for (int i = 0; i < 5000; ++i) {
    mail::DeliveryReport* report = parsed.add_delivery_reports();
    for (auto set : {&mail::DeliveryReport::mutable_recipient, &mail::DeliveryReport::mutable_action,
                     &mail::DeliveryReport::mutable_status, &mail::DeliveryReport::mutable_diagnostic,
                     &mail::DeliveryReport::mutable_original_message_id}) {
      *(report->*set)() = long_name;
    }
  }
  FolderKey folder;
  folder.mailbox.id = std::string(63, 'm');
  folder.folder = std::string(255, 'f');
  const v1::Message message = MessageFrom(parsed, folder, 1, {});
  v1::ListTicketEventsResponse page;
  *page.add_events()->mutable_message() = message;
  EXPECT_LT(page.ByteSizeLong() + (64 << 10), kGrpcLimit);
  EXPECT_EQ(*message.references().rbegin(), "the-parent@example.org");
  EXPECT_TRUE(message.from().address().empty());
  EXPECT_TRUE(message.text_truncated());
  EXPECT_FALSE(message.note().empty());
}

TEST(MessageContent, AnOrdinaryMailIsToldInFull) {
  mail::ParsedMail parsed;
  parsed.set_subject("Grüße");
  for (int i = 0; i < 1000; ++i) parsed.add_to()->set_address("someone@example.org");
  parsed.add_attachments()->set_filename("a.pdf");
  const v1::Message message = MessageFrom(parsed, {}, 1, {});
  EXPECT_EQ(message.subject(), "Grüße");
  EXPECT_EQ(message.to_size(), 1000);
  EXPECT_EQ(message.attachments_size(), 1);
  EXPECT_TRUE(message.note().empty());
}

}  // namespace
}  // namespace poststelle::fetcher
