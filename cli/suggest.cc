#include "cli/suggest.h"

#include <iostream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "cli/output.h"

namespace poststelle::cli {
namespace {

using config::v1::Connection;
using config::v1::Mailbox;
using Response = config::v1::SuggestSettingsResponse;

grpc::Status Ask(const Context& context, const std::string& address, Response& response) {
  config::v1::SuggestSettingsRequest request;
  request.set_address(address);
  return config::v1::MailboxService::NewStub(context.config())->SuggestSettings(Call().get(), request, &response);
}

std::string EncryptionOf(const Connection& server) {
  return Short(Connection::Encryption_Name(server.encryption()), "ENCRYPTION_");
}

std::string SourceText(Response::Source source) {
  switch (source) {
    case Response::SOURCE_PROVIDER:
      return "the table of providers";
    case Response::SOURCE_DNS_SRV:
      return "the domain's DNS (SRV)";
    case Response::SOURCE_DNS_MX:
      return "the table of providers, found by who receives the domain's mail (MX)";
    default:
      return "a guess";
  }
}

void PrintNotes(const Response& response, std::ostream& out) {
  for (const auto& note : response.provider().notes()) out << "note: " << Escape(note.en()) << "\n";
  for (const auto& warning : response.warnings()) out << "warning: " << Escape(warning.text().en()) << "\n";
}

// Whether `host` is the domain of `address` or lies in it.
bool InDomain(const std::string& host, const std::string& address) {
  const std::string domain = absl::AsciiStrToLower(address.substr(address.rfind('@') + 1));
  return host == domain || absl::EndsWith(host, "." + domain);
}

}  // namespace

int Suggest(const Context& context, const std::string& address) {
  Response response;
  if (const grpc::Status status = Ask(context, address, response); !status.ok()) return Report(status);
  if (context.json()) {
    std::cout << Json(response) << "\n";
    return 0;
  }
  std::vector<std::vector<std::string>> servers{{"DIRECTION", "PROTOCOL", "SERVER", "PORT", "ENCRYPTION", "LOGIN"}};
  auto add = [&](const std::string& direction, const Connection& server) {
    servers.push_back({direction, Short(Connection::Protocol_Name(server.protocol()), "PROTOCOL_"), server.host(),
                       std::to_string(server.port()), EncryptionOf(server), response.login_name()});
  };
  for (const Connection& server : response.inbound()) add("inbound", server);
  for (const Connection& server : response.outbound()) add("outbound", server);
  std::cout << Table(servers) << "from " << SourceText(response.source()) << "\n";
  if (response.has_provider()) {
    const auto& provider = response.provider();
    std::cout << "provider: " << Escape(provider.display_name()) << ", " << Escape(provider.source_url()) << "\n";
    if (provider.has_min_fetch_interval()) {
      std::cout << "asks for at least " << provider.min_fetch_interval().seconds() << " s between polls\n";
    }
    if (provider.max_connections() != 0) {
      std::cout << "takes at most " << provider.max_connections() << " connections of an account\n";
    }
  }
  PrintNotes(response, std::cout);
  return 0;
}

bool FillFromSuggestion(const Context& context, const std::string& address, const std::string& encryption,
                        Mailbox& mailbox, int& exit_code) {
  Response response;
  if (const grpc::Status status = Ask(context, address, response); !status.ok()) {
    exit_code = Report(status);
    return false;
  }
  const bool outbound = mailbox.direction() == Mailbox::DIRECTION_OUTBOUND;
  const auto& servers = outbound ? response.outbound() : response.inbound();
  const Connection* chosen = nullptr;
  for (const Connection& server : servers) {
    if (chosen == nullptr && (encryption.empty() || EncryptionOf(server) == encryption)) chosen = &server;
  }
  exit_code = 1;
  PrintNotes(response, std::cerr);
  if (chosen == nullptr) {
    std::cerr << "error: no such server is known for " << Escape(address) << "; give it with --host\n";
    return false;
  }
  if (response.source() == Response::SOURCE_DNS_SRV && !InDomain(chosen->host(), address)) {
    std::cerr << "error: DNS names " << Escape(chosen->host()) << ", which is not in the domain of " << Escape(address)
              << "; if it is right, give it with --host\n";
    return false;
  }
  std::cerr << "server: " << Escape(chosen->host()) << ":" << chosen->port() << " " << EncryptionOf(*chosen)
            << ", from " << SourceText(response.source()) << "\n";
  *mailbox.mutable_connection() = *chosen;
  if (response.login_name() != address) {
    mailbox.mutable_password_authentication()->set_login_name(response.login_name());
  }
  return true;
}

}  // namespace poststelle::cli
