#include "services/fetcher/message_content.h"

#include <algorithm>

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

// Copies what a mail's headers say as long as there is room for it.
class Bounded {
 public:
  std::string Text(const std::string& text, size_t limit) {
    std::string out = Cut(text, limit, cut_);
    Take(out.size() + kPerField);  // a few fields, each far below the room
    return out;
  }

  void Add(const mail::Address& from, google::protobuf::RepeatedPtrField<v1::Address>* list) {
    v1::Address to = Copy(from);
    if (Take(to.ByteSizeLong() + kPerField)) *list->Add() = std::move(to);
  }

  void Add(const mail::Attachment& from, google::protobuf::RepeatedPtrField<v1::Attachment>* list) {
    v1::Attachment to;
    to.set_filename(Cut(from.filename(), kMaxTypeBytes, cut_));
    to.set_content_type(Cut(from.content_type(), kMaxTypeBytes, cut_));
    to.set_size(static_cast<int64_t>(from.size()));
    to.set_sha256(from.sha256());
    to.set_content_id(Cut(from.content_id(), kMaxTypeBytes, cut_));
    to.set_inline_(from.inline_());
    if (Take(to.ByteSizeLong() + kPerField)) *list->Add() = std::move(to);
  }

  void Add(const mail::DeliveryReport& from, google::protobuf::RepeatedPtrField<v1::DeliveryReport>* list) {
    v1::DeliveryReport to;
    to.set_recipient(Cut(from.recipient(), kMaxAddressBytes, cut_));
    to.set_action(Cut(from.action(), kMaxTypeBytes, cut_));
    to.set_status(Cut(from.status(), kMaxTypeBytes, cut_));
    to.set_diagnostic(Cut(from.diagnostic(), kMaxDiagnosticBytes, cut_));
    to.set_original_message_id(Cut(from.original_message_id(), kMaxIdBytes, cut_));
    if (Take(to.ByteSizeLong() + kPerField)) *list->Add() = std::move(to);
  }

  // The last ones say most: a reply's parent is at the end of References.
  void AddIds(const google::protobuf::RepeatedPtrField<std::string>& from,
              google::protobuf::RepeatedPtrField<std::string>* list) {
    int first = from.size();
    size_t bytes = 0;
    while (first > 0 && bytes < kMaxIdsBytes) bytes += std::min(from[--first].size(), kMaxIdBytes) + kPerField;
    if (first > 0) cut_ = true;
    for (int i = first; i < from.size(); ++i) *list->Add() = Text(from[i], kMaxIdBytes);
  }

  v1::Address Copy(const mail::Address& from) {
    v1::Address to;
    to.set_display_name(Cut(from.name(), kMaxAddressBytes, cut_));
    if (from.address().size() <= kMaxAddressBytes) {
      to.set_address(from.address());
    } else {
      cut_ = true;  // half an address would be somebody else's
    }
    return to;
  }

  bool cut() const { return cut_; }

 private:
  static constexpr size_t kPerField = 16;           // tags and lengths
  static constexpr size_t kMaxIdsBytes = 64 << 10;  // of In-Reply-To or References

  bool Take(size_t bytes) {
    if (bytes > left_) {
      cut_ = true;
      return false;
    }
    left_ -= bytes;
    return true;
  }

  size_t left_ = kMaxOtherBytes;
  bool cut_ = false;
};

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
  Bounded bounded;
  if (parsed.from_size() > 0) *out.mutable_from() = bounded.Copy(parsed.from(0));
  out.set_subject(bounded.Text(parsed.subject(), kMaxSubjectBytes));
  out.set_message_id(bounded.Text(parsed.message_id(), kMaxIdBytes));
  bounded.AddIds(parsed.in_reply_to(), out.mutable_in_reply_to());
  bounded.AddIds(parsed.references(), out.mutable_references());
  for (const mail::Address& a : parsed.reply_to()) bounded.Add(a, out.mutable_reply_to());
  for (const mail::Address& a : parsed.to()) bounded.Add(a, out.mutable_to());
  for (const mail::Address& a : parsed.cc()) bounded.Add(a, out.mutable_cc());
  for (const mail::Attachment& a : parsed.attachments()) bounded.Add(a, out.mutable_attachments());
  out.set_origin(static_cast<v1::Message::Origin>(parsed.origin()));
  out.set_origin_evidence(bounded.Text(parsed.origin_evidence(), kMaxIdBytes));
  for (const mail::DeliveryReport& r : parsed.delivery_reports()) bounded.Add(r, out.mutable_delivery_reports());
  if (parsed.has_date()) out.mutable_date()->set_seconds(parsed.date_unix());
  out.mutable_receive_time()->set_seconds(listed.internal_date);
  bool cut = false;
  out.set_text(Cut(parsed.text(), kMaxTextBytes, cut));
  out.set_html(Cut(parsed.html(), kMaxTextBytes, cut));
  out.set_text_truncated(cut);
  out.set_historical(listed.historical);
  out.set_undecodable(parsed.undecodable());
  out.set_undecodable_reason(bounded.Text(parsed.undecodable_reason(), kMaxSubjectBytes));
  if (bounded.cut()) {
    out.set_note("Its headers or its list of attachments are too long to be told in full; the raw mail has them.");
  }
  return out;
}

}  // namespace poststelle::fetcher
