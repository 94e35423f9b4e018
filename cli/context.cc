#include "cli/context.h"

#include <chrono>
#include <iostream>

#include "cli/output.h"
#include "libs/rpc/client.h"
#include "libs/rpc/status.h"

namespace poststelle::cli {

std::shared_ptr<grpc::Channel> Context::config() const { return Channel(config_address); }
std::shared_ptr<grpc::Channel> Context::fetcher() const { return Channel(fetcher_address); }

std::shared_ptr<grpc::Channel> Context::Channel(const std::string& address) const {
  if (!token_file.empty() && !rpc::StaysOnThisMachine(address)) {
    std::cerr << "warning: the token goes to " << address << " in clear text\n";
  }
  return rpc::MakeChannel(address, token_file);
}

std::unique_ptr<grpc::ClientContext> Call() {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(90));
  return context;
}

int Report(const grpc::Status& status) {
  if (status.ok()) return 0;
  const std::string reason = rpc::ReasonOf(status);
  const auto violations = rpc::ViolationsOf(status);
  std::cerr << "error: " << (violations.empty() ? Escape(status.error_message()) : "the request was refused")
            << (reason.empty() ? "" : " (" + reason + ")") << "\n";
  for (const rpc::Violation& v : violations)
    std::cerr << "  " << Escape(v.field) << ": " << Escape(v.description) << "\n";
  switch (status.error_code()) {
    case grpc::StatusCode::INVALID_ARGUMENT:
      return 2;
    case grpc::StatusCode::NOT_FOUND:
      return 3;
    case grpc::StatusCode::ABORTED:
    case grpc::StatusCode::ALREADY_EXISTS:
      return 4;
    case grpc::StatusCode::UNAUTHENTICATED:
    case grpc::StatusCode::PERMISSION_DENIED:
      return 5;
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return 6;
    default:
      return 1;
  }
}

grpc::Status FindMailbox(const Context& context, const std::string& what, config::v1::Mailbox& out) {
  auto stub = config::v1::MailboxService::NewStub(context.config());
  config::v1::GetMailboxRequest get;
  get.set_name(what.starts_with("mailboxes/") ? what : "mailboxes/" + what);
  config::v1::GetMailboxResponse got;
  grpc::Status status = stub->GetMailbox(Call().get(), get, &got);
  if (status.ok()) {
    out = got.mailbox();
    return status;
  }
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) return status;
  config::v1::ListMailboxesRequest list;
  list.set_page_size(1000);
  while (true) {
    config::v1::ListMailboxesResponse page;
    grpc::Status listed = stub->ListMailboxes(Call().get(), list, &page);
    if (!listed.ok()) return listed;
    for (const auto& mailbox : page.mailboxes()) {
      if (mailbox.display_name() != what) continue;
      out = mailbox;
      return grpc::Status::OK;
    }
    if (page.next_page_token().empty()) break;
    list.set_page_token(page.next_page_token());
  }
  return rpc::Error(grpc::StatusCode::NOT_FOUND, "MAILBOX_NOT_FOUND", "there is no mailbox " + what);
}

CLI::App* Command(CLI::App& parent, Context& context, const std::string& name, const std::string& help,
                  std::function<int()> run) {
  CLI::App* command = parent.add_subcommand(name, help);
  command->callback([&context, run = std::move(run)] { context.exit_code = run(); });
  return command;
}

}  // namespace poststelle::cli
