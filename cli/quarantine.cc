#include <iostream>

#include "cli/context.h"
#include "cli/output.h"
#include "poststelle/fetcher/v1/quarantine_service.grpc.pb.h"

namespace poststelle::cli {
namespace {

using fetcher::v1::QuarantineService;

std::vector<std::string> RowOf(const fetcher::v1::QuarantinedMessage& m) {
  return {m.name(),    Short(fetcher::v1::QuarantinedMessage::Kind_Name(m.kind()), "KIND_"),
          m.mailbox(), m.from().address(),
          m.subject(), m.reason()};
}

void Print(const std::vector<fetcher::v1::QuarantinedMessage>& messages) {
  std::vector<std::vector<std::string>> rows{{"MESSAGE", "KIND", "MAILBOX", "FROM", "SUBJECT", "REASON"}};
  for (const auto& m : messages) rows.push_back(RowOf(m));
  std::cout << Table(rows);
}

int List(const Context& context) {
  fetcher::v1::ListQuarantinedMessagesResponse page;
  const grpc::Status status =
      QuarantineService::NewStub(context.fetcher())->ListQuarantinedMessages(Call().get(), {}, &page);
  if (!status.ok()) return Report(status);
  if (context.json()) {
    std::cout << Json(page) << "\n";
  } else {
    Print({page.messages().begin(), page.messages().end()});
  }
  return 0;
}

int Get(const Context& context, const std::string& name) {
  fetcher::v1::GetQuarantinedMessageRequest request;
  request.set_name(name.starts_with("messages/") ? name : "messages/" + name);
  fetcher::v1::GetQuarantinedMessageResponse response;
  const grpc::Status status =
      QuarantineService::NewStub(context.fetcher())->GetQuarantinedMessage(Call().get(), request, &response);
  if (!status.ok()) return Report(status);
  if (context.json()) {
    std::cout << Json(response.message()) << "\n";
  } else {
    Print({response.message()});
  }
  return 0;
}

}  // namespace

void AddQuarantineCommands(CLI::App& app, Context& context) {
  CLI::App* noun = app.add_subcommand("quarantine", "Messages that need a look")->require_subcommand(1);
  auto name = std::make_shared<std::string>();
  Command(*noun, context, "list", "Newest entries", [&context] { return List(context); });
  Command(*noun, context, "get", "One entry", [&context, name] { return Get(context, *name); })
      ->add_option("MESSAGE", *name)
      ->required();
}

}  // namespace poststelle::cli
