#include "services/sender/options.h"

namespace poststelle::sender {

std::optional<int> ParseOptions(int argc, char** argv, Options& options) {
  rpc::Options flags("sender", "Sends through outbound mailboxes; for now it tries their settings.");
  flags.common().listen = "127.0.0.1:7073";
  flags.Text("--ehlo-name", options.ehlo_name,
             "Who we say we are to mail servers: a domain of this installation, or an address literal");
  flags.Duration("--command-timeout", options.command_timeout,
                 "How long a mail server may take for one step of a test");
  flags.List(
      "--egress-allow",
      "Networks in which mail servers may be though they are not public: ADDRESS[/LENGTH][:PORT[-PORT]], IPv6 in "
      "brackets where a port follows",
      [&options](const std::string& network) { return options.egress.Allow(network); });
  flags.List("--egress-deny", "Networks in which no mail server may be; wins over --egress-allow",
             [&options](const std::string& network) { return options.egress.Deny(network); });
  if (std::optional<int> exit_code = flags.Parse(argc, argv)) return exit_code;
  options.common = flags.common();
  return std::nullopt;
}

}  // namespace poststelle::sender
