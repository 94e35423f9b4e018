// poststelle, the command line. One file a noun; README.md has the exit codes.
#include "cli/context.h"
#include "libs/secrets/vault.h"

namespace {

// What is wrong with a token file; empty if nothing is.
std::string CheckToken(const std::string& path) {
  return std::string(poststelle::secrets::LoadToken(path).status().message());
}

}  // namespace

int main(int argc, char** argv) {
  poststelle::cli::Context context;
  CLI::App app(
      "Mailboxes, tickets and messages of Poststelle. Exit codes: 0 done, 1 error, 2 usage, 3 not found, 4 conflict, "
      "5 not allowed, 6 not reachable, 7 differences or a failed check.",
      "poststelle");
  app.set_version_flag("--version", "poststelle 0.1.0");
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--config-address", context.config_address, "Address of the config service")
      ->envname("POSTSTELLE_CONFIG_ADDRESS");
  app.add_option("--fetcher-address", context.fetcher_address, "Address of a fetcher")
      ->envname("POSTSTELLE_FETCHER_ADDRESS");
  app.add_option("--token-file", context.token_file, "File with the token that calls bring; others must not read it")
      ->envname("POSTSTELLE_TOKEN_FILE")
      ->check(CheckToken);
  app.add_option("-o,--output", context.output, "table or json")->check(CLI::IsMember({"table", "json"}));
  poststelle::cli::AddMailboxCommands(app, context);
  poststelle::cli::AddTicketCommands(app, context);
  poststelle::cli::AddMessageCommands(app, context);
  poststelle::cli::AddQuarantineCommands(app, context);
  poststelle::cli::AddCatalogueCommands(app, context);
  poststelle::cli::AddApplyCommands(app, context);
  poststelle::cli::AddCompletionCommand(app, context);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& done) {
    return app.exit(done);
  } catch (const CLI::ParseError& mistake) {
    app.exit(mistake);
    return 2;
  }
  return context.exit_code;
}
