#include "services/fetcher/message_content.h"

namespace poststelle::fetcher {
namespace {

// Cuts at a character's border.
std::string Cut(const std::string& text, size_t limit, bool& cut) {
  if (text.size() <= limit) return text;
  cut = true;
  size_t end = limit;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

void CopyAddress(const mail::Address& from, v1::Address* to) {
  to->set_display_name(from.name());
  to->set_address(from.address());
}

}  // namespace

v1::Message MessageFrom(const mail::ParsedMail& parsed, const FolderKey& folder, uint32_t uid_validity,
                        const PendingMessage& listed) {
  v1::Message out;
  out.set_name("messages/" + listed.message_id);
  out.set_mailbox("mailboxes/" + folder.mailbox.id);
  v1::ServerIdentity* identity = out.mutable_server_identity();
  identity->set_connection_generation(folder.generation);
  identity->set_folder(folder.folder);
  identity->set_uid_validity(uid_validity);
  identity->set_uid(listed.uid);
  if (parsed.from_size() > 0) CopyAddress(parsed.from(0), out.mutable_from());
  for (const mail::Address& a : parsed.reply_to()) CopyAddress(a, out.add_reply_to());
  for (const mail::Address& a : parsed.to()) CopyAddress(a, out.add_to());
  for (const mail::Address& a : parsed.cc()) CopyAddress(a, out.add_cc());
  out.set_subject(parsed.subject());
  if (parsed.has_date()) out.mutable_date()->set_seconds(parsed.date_unix());
  out.mutable_receive_time()->set_seconds(listed.internal_date);
  out.set_message_id(parsed.message_id());
  out.mutable_in_reply_to()->CopyFrom(parsed.in_reply_to());
  out.mutable_references()->CopyFrom(parsed.references());
  bool cut = false;
  out.set_text(Cut(parsed.text(), kMaxTextBytes, cut));
  out.set_html(Cut(parsed.html(), kMaxTextBytes, cut));
  out.set_text_truncated(cut);
  for (const mail::Attachment& a : parsed.attachments()) {
    v1::Attachment* to = out.add_attachments();
    to->set_filename(a.filename());
    to->set_content_type(a.content_type());
    to->set_size(static_cast<int64_t>(a.size()));
    to->set_sha256(a.sha256());
    to->set_content_id(a.content_id());
    to->set_inline_(a.inline_());
  }
  out.set_historical(listed.historical);
  out.set_undecodable(parsed.undecodable());
  out.set_undecodable_reason(parsed.undecodable_reason());
  return out;
}

}  // namespace poststelle::fetcher
