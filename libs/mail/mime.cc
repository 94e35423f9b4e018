#include "libs/mail/mime.h"

#include <gmime/gmime.h>

#include <memory>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "libs/base/ids.h"
#include "libs/base/sv.h"
#include "libs/mail/base64.h"
#include "libs/mail/charset.h"
#include "libs/mail/origin.h"
#include "libs/mail/scan.h"

namespace poststelle::mail {
namespace {

constexpr size_t kMaxFilename = 200;
constexpr int kMaxAddresses = 1000;

struct Unref {
  void operator()(void* object) const { g_object_unref(object); }
};
template <typename T>
using Ref = std::unique_ptr<T, Unref>;

std::string Str(const char* text) { return text == nullptr ? std::string() : std::string(text); }

// A file name for people: no path, no control characters, no bidi overrides, not longer than a file system takes.
std::string CleanFilename(const std::string& name) {
  std::string text = ToUtf8(name.find("=?") == std::string::npos ? name : DecodeHeader(name), "");
  if (const size_t slash = text.find_last_of("/\\"); slash != std::string::npos) text.erase(0, slash + 1);
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c < 0x20 || c == 0x7F) continue;
    // U+202A..U+202E and U+2066..U+2069
    if (c == 0xE2 && i + 2 < text.size()) {
      const auto d = static_cast<unsigned char>(text[i + 1]);
      const auto e = static_cast<unsigned char>(text[i + 2]);
      if ((d == 0x80 && e >= 0xAA && e <= 0xAE) || (d == 0x81 && e >= 0xA6 && e <= 0xA9)) {
        i += 2;
        continue;
      }
    }
    out.push_back(static_cast<char>(c));
  }
  if (out.size() > kMaxFilename) {
    size_t end = kMaxFilename;
    while (end > 0 && (static_cast<unsigned char>(out[end]) & 0xC0) == 0x80) --end;
    out.resize(end);
  }
  return out;
}

void AddAddresses(InternetAddressList* list, google::protobuf::RepeatedPtrField<Address>* out, int depth = 0) {
  if (list == nullptr || depth > 2) return;
  for (int i = 0; i < internet_address_list_length(list) && out->size() < kMaxAddresses; ++i) {
    InternetAddress* address = internet_address_list_get_address(list, i);
    if (INTERNET_ADDRESS_IS_GROUP(address)) {
      AddAddresses(internet_address_group_get_members(INTERNET_ADDRESS_GROUP(address)), out, depth + 1);
      continue;
    }
    Address* a = out->Add();
    a->set_address(ToUtf8(Str(internet_address_mailbox_get_addr(INTERNET_ADDRESS_MAILBOX(address))), ""));
    a->set_name(DecodeHeader(ToUtf8(Str(internet_address_get_name(address)), "")));
  }
}

// The bytes of a part as they stand in the mail; empty if they do not lie in memory, or if there are none.
std::string_view Encoded(GMimeDataWrapper* wrapper) {
  GMimeStream* stream = g_mime_data_wrapper_get_stream(wrapper);
  if (stream == nullptr || !GMIME_IS_STREAM_MEM(stream)) return {};
  const GByteArray* bytes = g_mime_stream_mem_get_byte_array(GMIME_STREAM_MEM(stream));
  if (bytes == nullptr) return {};
  const gint64 end = stream->bound_end < 0 ? static_cast<gint64>(bytes->len) : stream->bound_end;
  if (stream->bound_start < 0 || stream->bound_start > end || end > static_cast<gint64>(bytes->len)) return {};
  return {reinterpret_cast<const char*>(bytes->data) + stream->bound_start,
          static_cast<size_t>(end - stream->bound_start)};
}

std::string Content(GMimePart* part) {
  GMimeDataWrapper* wrapper = g_mime_part_get_content(part);
  if (wrapper == nullptr) return {};
  const std::string_view encoded = Encoded(wrapper);
  if (std::string decoded; !encoded.empty() &&
                           g_mime_data_wrapper_get_encoding(wrapper) == GMIME_CONTENT_ENCODING_BASE64 &&
                           DecodeRegularBase64(encoded, decoded)) {
    return decoded;
  }
  const Ref<GMimeStream> memory(g_mime_stream_mem_new());
  g_mime_data_wrapper_write_to_stream(wrapper, memory.get());
  GByteArray* bytes = g_mime_stream_mem_get_byte_array(GMIME_STREAM_MEM(memory.get()));
  return std::string(reinterpret_cast<const char*>(bytes->data), bytes->len);
}

std::string TypeOf(GMimeObject* object) {
  GMimeContentType* type = g_mime_object_get_content_type(object);
  if (type == nullptr) return "application/octet-stream";
  return absl::AsciiStrToLower(absl::StrCat(Str(g_mime_content_type_get_media_type(type)), "/",
                                            Str(g_mime_content_type_get_media_subtype(type))));
}

// A parameter of Content-Type, even where GMime drops the field because its type has no slash.
std::string TypeParameter(GMimeObject* object, const char* name) {
  if (const char* value = g_mime_object_get_content_type_parameter(object, name)) return value;
  GMimeHeader* header = g_mime_header_list_get_header(g_mime_object_get_header_list(object), "Content-Type");
  const std::string raw = Str(header == nullptr ? nullptr : g_mime_header_get_raw_value(header));
  const size_t semicolon = raw.find(';');
  if (semicolon == std::string::npos || raw.substr(0, semicolon).find('/') != std::string::npos) return {};
  const Ref<GMimeParamList> parameters(g_mime_param_list_parse(nullptr, raw.c_str() + semicolon + 1));
  if (parameters == nullptr) return {};
  GMimeParam* parameter = g_mime_param_list_get_parameter(parameters.get(), name);
  return parameter == nullptr ? std::string() : Str(g_mime_param_get_value(parameter));
}

class Builder {
 public:
  Builder(ParsedMail& out, ReportParts& reports) : out_(out), reports_(reports) {}

  // Parts in their order, without recursion: multiparts put their children on the stack.
  void Walk(GMimeObject* root) {
    std::vector<GMimeObject*> stack{root};
    while (!stack.empty()) {
      GMimeObject* object = stack.back();
      stack.pop_back();
      if (object == nullptr) continue;
      if (GMIME_IS_MULTIPART(object)) {
        GMimeMultipart* multipart = GMIME_MULTIPART(object);
        for (int i = g_mime_multipart_get_count(multipart) - 1; i >= 0; --i) {
          stack.push_back(g_mime_multipart_get_part(multipart, i));
        }
      } else if (GMIME_IS_MESSAGE_PART(object)) {
        AddMessage(GMIME_MESSAGE_PART(object));
      } else if (GMIME_IS_PART(object)) {
        AddPart(GMIME_PART(object));
      }
    }
  }

 private:
  void AddPart(GMimePart* part) {
    GMimeObject* object = GMIME_OBJECT(part);
    const std::string type = TypeOf(object);
    const std::string disposition = absl::AsciiStrToLower(Str(g_mime_object_get_disposition(object)));
    std::string given = Str(g_mime_part_get_filename(part));
    if (given.empty()) given = TypeParameter(object, "name");
    const std::string filename = CleanFilename(given);
    std::string content = Content(part);
    reports_.Take(type, content);
    const bool attached =
        disposition == "attachment" || (!filename.empty() && type != "text/plain" && type != "text/html");
    if (!attached && filename.empty() && (type == "text/plain" || type == "text/html")) {
      const std::string text = ToUtf8(content, TypeParameter(object, "charset"));
      std::string* target = type == "text/plain" ? out_.mutable_text() : out_.mutable_html();
      if (!target->empty() && target->back() != '\n') target->push_back('\n');
      target->append(text);
      return;
    }
    Add(object, type, disposition, filename, content);
  }

  void AddMessage(GMimeMessagePart* part) {
    GMimeMessage* message = g_mime_message_part_get_message(part);
    std::string bytes;
    if (message != nullptr) {
      const Ref<GMimeStream> memory(g_mime_stream_mem_new());
      g_mime_object_write_to_stream(GMIME_OBJECT(message), nullptr, memory.get());
      GByteArray* array = g_mime_stream_mem_get_byte_array(GMIME_STREAM_MEM(memory.get()));
      bytes.assign(reinterpret_cast<const char*>(array->data), array->len);
    }
    GMimeObject* object = GMIME_OBJECT(part);
    reports_.Take(TypeOf(object), bytes);
    std::string filename = Str(g_mime_object_get_content_disposition_parameter(object, "filename"));
    if (filename.empty()) filename = TypeParameter(object, "name");
    Add(object, TypeOf(object), absl::AsciiStrToLower(Str(g_mime_object_get_disposition(object))),
        CleanFilename(filename), bytes);
  }

  void Add(GMimeObject* object, const std::string& type, const std::string& disposition, const std::string& filename,
           const std::string& content) {
    Attachment* attachment = out_.add_attachments();
    attachment->set_filename(filename);
    attachment->set_content_type(ToUtf8(type, ""));
    attachment->set_size(content.size());
    attachment->set_sha256(Hex(Sha256(content)));
    attachment->set_content_id(ToUtf8(Str(g_mime_object_get_content_id(object)), ""));
    attachment->set_inline_(disposition == "inline" || !attachment->content_id().empty());
  }

  ParsedMail& out_;
  ReportParts& reports_;
};

}  // namespace

void InitMime() { g_mime_init(); }

ParsedMail ParseMail(std::string_view raw) {
  // An mbox line in front of the headers is not one of them.
  if (raw.starts_with("From ")) raw.remove_prefix(std::min(raw.size(), raw.find('\n') + 1));
  const std::string with_feeds = WithLineFeeds(raw);
  if (!with_feeds.empty()) raw = with_feeds;
  ParsedMail out = ScanHeaders(raw);
  const std::string_view block = HeaderBlock(raw);
  const bool no_body = block.size() == raw.size();
  if (auto limit = FindLimit(raw)) {
    out.set_undecodable(true);
    out.set_undecodable_reason(absl::StrCat("The message could not be decoded: ", *limit, "."));
    return out;
  }
  const std::string shown = HideDeepFields(raw);
  if (!shown.empty()) raw = shown;
  const Ref<GMimeStream> stream(g_mime_stream_mem_new_with_buffer(raw.data(), raw.size()));
  const Ref<GMimeParser> parser(g_mime_parser_new_with_stream(stream.get()));
  const Ref<GMimeMessage> message(g_mime_parser_construct_message(parser.get(), nullptr));
  if (message == nullptr) {
    if (no_body) return out;  // nothing but headers, or nothing at all: that is all there is to read
    out.set_undecodable(true);
    out.set_undecodable_reason("The message could not be decoded: it has no readable structure.");
    return out;
  }
  // Addresses are GMime's (groups, comments, routes); everything else of the headers stays with our scan.
  auto addresses = [&block](std::string_view name, google::protobuf::RepeatedPtrField<Address>* target) {
    google::protobuf::RepeatedPtrField<Address> parsed;
    for (const std::string& value : RawHeaders(block, name, kMaxAddresses)) {
      if (TooManyGroups(value) || parsed.size() >= kMaxAddresses) continue;
      const Ref<InternetAddressList> list(internet_address_list_parse(nullptr, MendAddresses(value).c_str()));
      AddAddresses(list.get(), &parsed);
    }
    if (!parsed.empty()) target->Swap(&parsed);
  };
  addresses("From", out.mutable_from());
  addresses("Reply-To", out.mutable_reply_to());
  addresses("To", out.mutable_to());
  addresses("Cc", out.mutable_cc());
  ReportParts reports;
  Builder builder(out, reports);
  builder.Walk(g_mime_message_get_mime_part(message.get()));
  // The headers have told already that most mails are a person's; neither text nor parts change that.
  if (out.origin() != ORIGIN_UNSPECIFIED || reports.any()) ClassifyOrigin(block, reports, out);
  return out;
}

}  // namespace poststelle::mail
