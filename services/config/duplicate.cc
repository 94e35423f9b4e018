#include "services/config/duplicate.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/config/field_paths.h"
#include "services/config/provider_table.h"

namespace poststelle::config {
namespace {

using google::protobuf::util::FieldMaskUtil;
using Request = v1::DuplicateMailboxRequest;

// What the service alone decides, or what makes a mailbox the one that it is.
constexpr std::string_view kOwn[] = {"name",        "direction",   "connection_generation", "create_time",
                                     "update_time", "etag",        "enable_generation",     "warnings",
                                     "counterpart", "display_name"};

bool IsOwn(const std::string& path) {
  for (std::string_view own : kOwn) {
    if (path == own || absl::StartsWith(path, absl::StrCat(std::string(own), "."))) return true;
  }
  return false;
}

// The same provider's server for the other protocol, guessed from the name that servers usually have.
std::string OtherHost(const std::string& host, bool sends) {
  const std::string from = sends ? "imap." : "smtp.";
  return absl::StartsWithIgnoreCase(host, from) ? (sends ? "smtp." : "imap.") + host.substr(from.size()) : host;
}

v1::Connection OtherConnection(const v1::Mailbox& source, bool sends) {
  const v1::Connection& connection = source.connection();
  v1::Connection out = connection;
  out.set_protocol(sends ? v1::Connection::PROTOCOL_SMTP : v1::Connection::PROTOCOL_IMAP);
  out.set_host(OtherHost(connection.host(), sends));
  out.set_port(0);
  const ProviderEntry* provider = ProviderTable::Get().ByServer(connection.host(), source.address());
  if (provider == nullptr) return out;
  const std::vector<v1::Connection> usual =
      ConnectionsOf(*provider, sends ? Direction::kOutbound : Direction::kInbound);
  if (usual.empty()) return out;
  out.set_host(usual[0].host());
  out.set_port(usual[0].port());
  out.set_encryption(usual[0].encryption());
  return out;
}

}  // namespace

v1::Mailbox DuplicateOf(const v1::Mailbox& source, const Request& request, std::vector<rpc::Violation>& violations) {
  const bool inbound = source.direction() == v1::Mailbox::DIRECTION_INBOUND;
  v1::Mailbox out = source;
  out.clear_name();
  out.clear_etag();
  out.clear_counterpart();
  out.set_enabled(false);
  std::string suffix = " (copy)";
  if (request.kind() == Request::KIND_COUNTERPART) {
    suffix = inbound ? " (outbound)" : " (inbound)";
    out.set_direction(inbound ? v1::Mailbox::DIRECTION_OUTBOUND : v1::Mailbox::DIRECTION_INBOUND);
    out.set_counterpart(source.name());
    out.clear_import_options();
    *out.mutable_connection() = OtherConnection(source, inbound);
  } else if (request.kind() != Request::KIND_COPY) {
    violations.push_back({"kind", "must be KIND_COPY or KIND_COUNTERPART"});
  }
  out.set_display_name(request.display_name().empty() ? source.display_name() + suffix : request.display_name());
  const google::protobuf::FieldMask known =
      KnownPaths<v1::Mailbox>(request.override_mask(), "override_mask", violations);
  google::protobuf::FieldMask overridden;
  for (const std::string& path : known.paths()) {
    if (path == "*" || IsOwn(path)) {
      violations.push_back({"override_mask", absl::StrCat("names \"", path, "\", which can't be overridden")});
    } else {
      overridden.add_paths(path);
    }
  }
  FieldMaskUtil::MergeOptions options;
  options.set_replace_message_fields(true);
  options.set_replace_repeated_fields(true);
  FieldMaskUtil::MergeMessageTo(request.overrides(), overridden, options, &out);
  return out;
}

}  // namespace poststelle::config
