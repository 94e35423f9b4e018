// Completion for bash: the shell asks the program itself, so it knows every option, and the mailboxes there are.
#include <iostream>

#include "cli/context.h"

namespace poststelle::cli {
namespace {

constexpr const char* kScript = R"sh(# bash completion for poststelle: source <(poststelle completion bash)
_poststelle() {
  local IFS=$'\n'
  COMPREPLY=($("${COMP_WORDS[0]}" completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _poststelle poststelle
)sh";

// Words that may stand in the place of the last one of `words`.
std::vector<std::string> Candidates(const CLI::App& app, const Context& context,
                                    const std::vector<std::string>& words) {
  const CLI::App* at = &app;
  const std::string begun = words.empty() ? "" : words.back();
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    for (const CLI::App* sub : at->get_subcommands([](const CLI::App*) { return true; })) {
      if (sub->get_name() == words[i]) {
        at = sub;
        break;
      }
    }
  }
  std::vector<std::string> out;
  auto offer = [&](const std::string& word) {
    if (word.starts_with(begun)) out.push_back(word);
  };
  for (const CLI::App* sub : at->get_subcommands([](const CLI::App*) { return true; })) offer(sub->get_name());
  bool takes_mailbox = false;
  for (const CLI::Option* option : at->get_options()) {
    for (const std::string& name : option->get_lnames()) offer("--" + name);
    takes_mailbox = takes_mailbox || option->get_name(true) == "MAILBOX";
  }
  if (!takes_mailbox || begun.starts_with("-")) return out;
  config::v1::ListMailboxesRequest request;
  request.set_page_size(1000);
  // Nobody waits for a completion: what can't be had at once is left out.
  const auto deadline = std::chrono::system_clock::now() + std::chrono::seconds(1);
  auto stub = config::v1::MailboxService::NewStub(context.config());
  do {
    grpc::ClientContext call;
    call.set_deadline(deadline);
    config::v1::ListMailboxesResponse page;
    if (!stub->ListMailboxes(&call, request, &page).ok()) break;
    for (const auto& mailbox : page.mailboxes()) offer(mailbox.name().substr(mailbox.name().find('/') + 1));
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return out;
}

}  // namespace

void AddCompletionCommand(CLI::App& app, Context& context) {
  CLI::App* noun = app.add_subcommand("completion", "Completion for the shell")->require_subcommand(1);
  Command(*noun, context, "bash", "The script: source <(poststelle completion bash)", [] {
    std::cout << kScript;
    return 0;
  });
  auto words = std::make_shared<std::vector<std::string>>();
  CLI::App* complete =
      Command(*noun, context, "words", "What may come next (the script asks)", [&app, &context, words] {
        for (const std::string& word : Candidates(app, context, *words)) std::cout << word << "\n";
        return 0;
      });
  complete->add_option("WORD", *words);
  complete->group("");
}

}  // namespace poststelle::cli
