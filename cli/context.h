// What every command shares: where the services are, how to print, how to end.
#pragma once

#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>

#include "poststelle/config/v1/mailbox_service.grpc.pb.h"

namespace poststelle::cli {

struct Context {
  std::string config_address = "127.0.0.1:7071";
  std::string fetcher_address = "127.0.0.1:7072";
  std::string token_file;  // empty: calls bring no token
  std::string output = "table";
  int exit_code = 0;

  bool json() const { return output == "json"; }
  std::shared_ptr<grpc::Channel> config() const;
  std::shared_ptr<grpc::Channel> fetcher() const;

 private:
  std::shared_ptr<grpc::Channel> Channel(const std::string& address) const;
};

// A deadline for a unary call.
std::unique_ptr<grpc::ClientContext> Call();

// Prints an error with every bad field to standard error and returns the exit code of README.md.
int Report(const grpc::Status& status);

// The mailbox that a person means by resource name, id or display name. An error status if there is none.
grpc::Status FindMailbox(const Context& context, const std::string& what, config::v1::Mailbox& out);

// Adds a command; its return value becomes the exit code.
CLI::App* Command(CLI::App& parent, Context& context, const std::string& name, const std::string& help,
                  std::function<int()> run);

void AddMailboxCommands(CLI::App& app, Context& context);
// `test` and `preview`, of the noun "mailbox".
void AddMailboxTestCommands(CLI::App& mailbox, Context& context);
void AddTicketCommands(CLI::App& app, Context& context);
void AddMessageCommands(CLI::App& app, Context& context);
void AddQuarantineCommands(CLI::App& app, Context& context);
void AddCatalogueCommands(CLI::App& app, Context& context);
void AddApplyCommands(CLI::App& app, Context& context);
void AddCompletionCommand(CLI::App& app, Context& context);

}  // namespace poststelle::cli
