#include "cli/yaml.h"

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "google/api/field_behavior.pb.h"
#include "libs/base/status_macros.h"
#include "poststelle/config/v1/label_service.pb.h"
#include "poststelle/config/v1/mailbox.pb.h"
#include "poststelle/config/v1/ticket_status_service.pb.h"

namespace poststelle::cli {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr size_t kMaxNodes = 1'000'000;
constexpr int kMaxDepth = 32;

std::unique_ptr<Message> NewMessage(const std::string& kind) {
  if (kind == "Mailbox") return std::make_unique<config::v1::Mailbox>();
  if (kind == "TicketStatus") return std::make_unique<config::v1::TicketStatus>();
  if (kind == "Label") return std::make_unique<config::v1::Label>();
  return nullptr;
}

bool HasBehavior(const FieldDescriptor* field, google::api::FieldBehavior behavior) {
  for (int i = 0; i < field->options().ExtensionSize(google::api::field_behavior); ++i) {
    if (field->options().GetExtension(google::api::field_behavior, i) == behavior) return true;
  }
  return false;
}

bool IsPassword(const FieldDescriptor* field) { return HasBehavior(field, google::api::INPUT_ONLY); }

// What the service alone decides, and what only holds for one state of a resource.
bool IsOwn(const FieldDescriptor* field) {
  return HasBehavior(field, google::api::OUTPUT_ONLY) || field->name() == "etag";
}

// "ENCRYPTION_" for the enum Encryption.
std::string PrefixOf(const EnumDescriptor* type) {
  std::string out;
  for (char c : type->name()) {
    if (absl::ascii_isupper(static_cast<unsigned char>(c)) && !out.empty()) out += '_';
    out += absl::ascii_toupper(static_cast<unsigned char>(c));
  }
  return out + "_";
}

std::string ShortName(const google::protobuf::EnumValueDescriptor* value) {
  const std::string prefix = PrefixOf(value->type());
  const std::string& name = value->name();
  return absl::AsciiStrToLower(absl::StartsWith(name, prefix) ? name.substr(prefix.size()) : name);
}

class Reader {
 public:
  explicit Reader(const std::string& file) : file_(file) {}

  std::string Where(const YAML::Node& node) const {
    const YAML::Mark mark = node.Mark();
    return mark.is_null() ? file_ : absl::StrCat(file_, ":", mark.line + 1, ":", mark.column + 1);
  }
  std::string Where(const YAML::Mark& mark) const {
    return absl::StrCat(file_, ":", mark.line + 1, ":", mark.column + 1);
  }

  absl::StatusOr<Document> Read(const YAML::Node& root) {
    if (!root.IsMap()) return Wrong(root, "a document must be a map with the key kind");
    Document out;
    out.where = Where(root);
    const YAML::Node kind = root["kind"];
    if (!kind || !kind.IsScalar()) return Wrong(root, "the key kind is missing: Mailbox, TicketStatus or Label");
    out.kind = kind.Scalar();
    out.message = NewMessage(out.kind);
    if (out.message == nullptr) return Wrong(kind, "kind must be Mailbox, TicketStatus or Label");
    PS_RETURN_IF_ERROR(ReadMap(root, *out.message, 0, true));
    out.secrets = std::move(secrets_);
    secrets_.clear();
    return out;
  }

 private:
  absl::Status Wrong(const YAML::Node& node, const std::string& what) const {
    return absl::InvalidArgumentError(absl::StrCat(Where(node), ": ", what));
  }

  absl::Status Count(const YAML::Node& node, int depth) {
    if (++nodes_ > kMaxNodes) return Wrong(node, "the file has more than a million nodes, aliases counted each time");
    if (depth > kMaxDepth) return Wrong(node, "nested more than 32 deep");
    return absl::OkStatus();
  }

  const FieldDescriptor* Find(const Descriptor* type, const std::string& key) const {
    if (const FieldDescriptor* field = type->FindFieldByName(key)) return field;
    return type->FindFieldByCamelcaseName(key);
  }

  absl::Status ReadMap(const YAML::Node& node, Message& message, int depth, bool root) {
    PS_RETURN_IF_ERROR(Count(node, depth));
    if (!node.IsMap()) return Wrong(node, "must be a map");
    std::set<std::string> seen;
    for (const auto& entry : node) {
      if (!entry.first.IsScalar()) return Wrong(entry.first, "a key must be a word");
      const std::string& key = entry.first.Scalar();
      if (root && key == "kind") continue;
      const FieldDescriptor* field = Find(message.GetDescriptor(), key);
      if (field == nullptr)
        return Wrong(entry.first, absl::StrCat("unknown key \"", key, "\"; known are ", Known(message)));
      if (!seen.insert(field->name()).second) return Wrong(entry.first, absl::StrCat("\"", key, "\" is there twice"));
      if (IsOwn(field)) return Wrong(entry.first, absl::StrCat("\"", key, "\" is set by the service; leave it out"));
      PS_RETURN_IF_ERROR(ReadField(entry.second, message, field, depth + 1));
    }
    return absl::OkStatus();
  }

  static std::string Known(const Message& message) {
    std::vector<std::string> names;
    for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
      const FieldDescriptor* field = message.GetDescriptor()->field(i);
      if (!IsOwn(field)) names.push_back(field->json_name());
    }
    return absl::StrJoin(names, ", ");
  }

  absl::Status ReadField(const YAML::Node& node, Message& message, const FieldDescriptor* field, int depth) {
    PS_RETURN_IF_ERROR(Count(node, depth));
    if (node.IsNull()) return absl::OkStatus();  // "key:" says nothing
    if (IsPassword(field)) return ReadSecret(node);
    if (field->is_map()) return ReadStringMap(node, message, field);
    if (!field->is_repeated()) return ReadValue(node, message, field, depth);
    if (!node.IsSequence()) return Wrong(node, absl::StrCat(field->json_name(), " must be a list"));
    for (const YAML::Node& element : node) {
      PS_RETURN_IF_ERROR(Count(element, depth));
      PS_RETURN_IF_ERROR(ReadValue(element, message, field, depth));
    }
    return absl::OkStatus();
  }

  absl::Status ReadStringMap(const YAML::Node& node, Message& message, const FieldDescriptor* field) {
    if (!node.IsMap()) return Wrong(node, absl::StrCat(field->json_name(), " must be a map"));
    const Descriptor* entry_type = field->message_type();
    for (const auto& entry : node) {
      PS_RETURN_IF_ERROR(Count(entry.first, 0));
      if (!entry.first.IsScalar() || !entry.second.IsScalar()) {
        return Wrong(entry.first, absl::StrCat(field->json_name(), " must map words to words"));
      }
      Message* made = message.GetReflection()->AddMessage(&message, field);
      made->GetReflection()->SetString(made, entry_type->map_key(), entry.first.Scalar());
      made->GetReflection()->SetString(made, entry_type->map_value(), entry.second.Scalar());
    }
    return absl::OkStatus();
  }

  absl::Status ReadSecret(const YAML::Node& node) {
    if (!node.IsMap() || node.size() != 1) {
      return Wrong(node, "a password is never written here: give {env: VARIABLE} or {file: PATH}");
    }
    SecretReference reference;
    reference.where = Where(node);
    const auto entry = *node.begin();
    const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "";
    if ((key != "env" && key != "file") || !entry.second.IsScalar() || entry.second.Scalar().empty()) {
      return Wrong(node, "a password is referred to by {env: VARIABLE} or {file: PATH}");
    }
    (key == "env" ? reference.variable : reference.path) = entry.second.Scalar();
    secrets_.push_back(std::move(reference));
    return absl::OkStatus();
  }

  absl::Status ReadValue(const YAML::Node& node, Message& message, const FieldDescriptor* field, int depth) {
    const Reflection* reflection = message.GetReflection();
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      Message* inner =
          field->is_repeated() ? reflection->AddMessage(&message, field) : reflection->MutableMessage(&message, field);
      if (auto* duration = dynamic_cast<google::protobuf::Duration*>(inner)) return ReadDuration(node, *duration);
      return ReadMap(node, *inner, depth, false);
    }
    if (!node.IsScalar()) return Wrong(node, absl::StrCat(field->json_name(), " must be a single value"));
    const std::string& text = node.Scalar();
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        field->is_repeated() ? reflection->AddString(&message, field, text)
                             : reflection->SetString(&message, field, text);
        return absl::OkStatus();
      case FieldDescriptor::CPPTYPE_BOOL:
        if (text != "true" && text != "false")
          return Wrong(node, absl::StrCat(field->json_name(), " must be true or false"));
        reflection->SetBool(&message, field, text == "true");
        return absl::OkStatus();
      case FieldDescriptor::CPPTYPE_INT32: {
        int32_t number = 0;
        if (!absl::SimpleAtoi(text, &number))
          return Wrong(node, absl::StrCat(field->json_name(), " must be a whole number"));
        reflection->SetInt32(&message, field, number);
        return absl::OkStatus();
      }
      case FieldDescriptor::CPPTYPE_ENUM:
        return ReadEnum(node, message, field);
      default:
        return Wrong(node, absl::StrCat(field->json_name(), " can't be given here"));
    }
  }

  absl::Status ReadDuration(const YAML::Node& node, google::protobuf::Duration& out) const {
    absl::Duration duration;
    const bool good = node.IsScalar() && absl::ParseDuration(node.Scalar(), &duration) &&
                      duration < absl::Hours(24 * 365 * 100) && duration > -absl::Hours(24 * 365 * 100);
    if (!good) return Wrong(node, "must be a duration like 30s or 5m");
    out.set_seconds(absl::ToInt64Seconds(duration));
    out.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration % absl::Seconds(1))));
    return absl::OkStatus();
  }

  absl::Status ReadEnum(const YAML::Node& node, Message& message, const FieldDescriptor* field) const {
    std::vector<std::string> known;
    for (int i = 0; i < field->enum_type()->value_count(); ++i) {
      const auto* value = field->enum_type()->value(i);
      if (value->number() == 0) continue;
      known.push_back(ShortName(value));
      if (node.Scalar() != value->name() && node.Scalar() != known.back()) continue;
      message.GetReflection()->SetEnum(&message, field, value);
      return absl::OkStatus();
    }
    return Wrong(node, absl::StrCat(field->json_name(), " must be one of ", absl::StrJoin(known, ", ")));
  }

  const std::string file_;
  size_t nodes_ = 0;
  std::vector<SecretReference> secrets_;
};

// Lines that a literal block gives back as they are, certificates for instance.
bool IsBlock(const std::string& text) {
  const bool lines = text.size() > 2 && text.back() == '\n' && text[text.size() - 2] != '\n' &&
                     absl::ascii_isgraph(static_cast<unsigned char>(text[0]));
  return lines &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return c == '\n' || absl::ascii_isprint(c); });
}

// Text that reads back as the same text, whatever it holds.
void EmitText(YAML::Emitter& out, const std::string& text) {
  const bool plain = !text.empty() &&
                     text.find_first_not_of(
                         "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                         "./@_-") == std::string::npos &&
                     absl::ascii_isalpha(static_cast<unsigned char>(text[0]));
  static const std::set<std::string> kWords{"true", "false", "null", "yes", "no", "on", "off", "y", "n"};
  if (plain && !kWords.contains(absl::AsciiStrToLower(text))) {
    out << text;
  } else if (IsBlock(text)) {
    out << YAML::Literal << text;
  } else {
    out << YAML::DoubleQuoted << text;
  }
}

void EmitMap(YAML::Emitter& out, const Message& message, const std::string& password_variable);

void EmitValue(YAML::Emitter& out, const Message& message, const FieldDescriptor* field, int index,
               const std::string& password_variable) {
  const Reflection* reflection = message.GetReflection();
  const bool repeated = field->is_repeated();
  std::string scratch;
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_MESSAGE: {
      const Message& inner =
          repeated ? reflection->GetRepeatedMessage(message, field, index) : reflection->GetMessage(message, field);
      if (const auto* d = dynamic_cast<const google::protobuf::Duration*>(&inner)) {
        out << absl::FormatDuration(absl::Seconds(d->seconds()) + absl::Nanoseconds(d->nanos()));
      } else {
        EmitMap(out, inner, password_variable);
      }
      return;
    }
    case FieldDescriptor::CPPTYPE_STRING:
      EmitText(out, repeated ? reflection->GetRepeatedStringReference(message, field, index, &scratch)
                             : reflection->GetStringReference(message, field, &scratch));
      return;
    case FieldDescriptor::CPPTYPE_BOOL:
      out << (reflection->GetBool(message, field) ? "true" : "false");
      return;
    case FieldDescriptor::CPPTYPE_INT32:
      out << reflection->GetInt32(message, field);
      return;
    case FieldDescriptor::CPPTYPE_ENUM:
      out << ShortName(reflection->GetEnum(message, field));
      return;
    default:
      out << YAML::Null;
  }
}

void EmitMap(YAML::Emitter& out, const Message& message, const std::string& password_variable) {
  const Reflection* reflection = message.GetReflection();
  out << YAML::BeginMap;
  if (message.GetDescriptor() == config::v1::PasswordAuthentication::descriptor() &&
      dynamic_cast<const config::v1::PasswordAuthentication&>(message).password_set()) {
    out << YAML::Key << "password" << YAML::Value << YAML::Flow << YAML::BeginMap << YAML::Key << "env" << YAML::Value
        << password_variable << YAML::EndMap;
  }
  std::vector<const FieldDescriptor*> fields;
  reflection->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (IsOwn(field) || IsPassword(field)) continue;
    out << YAML::Key << field->json_name() << YAML::Value;
    if (field->is_map()) {
      std::map<std::string, std::string> sorted;
      for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
        const Message& entry = reflection->GetRepeatedMessage(message, field, i);
        const Descriptor* type = field->message_type();
        sorted[entry.GetReflection()->GetString(entry, type->map_key())] =
            entry.GetReflection()->GetString(entry, type->map_value());
      }
      out << YAML::BeginMap;
      for (const auto& [key, value] : sorted) {
        out << YAML::Key;
        EmitText(out, key);
        out << YAML::Value;
        EmitText(out, value);
      }
      out << YAML::EndMap;
    } else if (field->is_repeated()) {
      out << YAML::BeginSeq;
      for (int i = 0; i < reflection->FieldSize(message, field); ++i)
        EmitValue(out, message, field, i, password_variable);
      out << YAML::EndSeq;
    } else {
      EmitValue(out, message, field, 0, password_variable);
    }
  }
  out << YAML::EndMap;
}

}  // namespace

absl::StatusOr<std::vector<Document>> ReadDocuments(const std::string& text, const std::string& file) {
  std::vector<Document> out;
  Reader reader(file);
  try {
    for (const YAML::Node& root : YAML::LoadAll(text)) {
      if (!root.IsDefined() || root.IsNull()) continue;  // nothing between two separators
      PS_ASSIGN_OR_RETURN(Document document, reader.Read(root));
      out.push_back(std::move(document));
    }
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(reader.Where(error.mark), ": ", error.msg));
  }
  return out;
}

std::string WriteDocument(const std::string& kind, const Message& message, const std::string& password_variable) {
  YAML::Emitter body;
  EmitMap(body, message, password_variable);
  return absl::StrCat("---\nkind: ", kind, "\n", body.c_str(), "\n");
}

}  // namespace poststelle::cli
