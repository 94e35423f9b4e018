#include "libs/rpc/options.h"

#include <algorithm>
#include <cctype>

#include "libs/observe/log.h"

namespace poststelle::rpc {

Options::Options(const std::string& service, const std::string& description)
    : app_(description, "poststelle-" + service), prefix_([&service] {
        std::string upper = "POSTSTELLE_" + service + "_";
        std::transform(upper.begin(), upper.end(), upper.begin(), [](unsigned char c) { return std::toupper(c); });
        return upper;
      }()) {
  app_.set_version_flag("--version", "poststelle-" + service + " 0.1.0");
  Text("--listen", common_.listen, "Address to serve gRPC on; port 0 takes a free one");
  Text("--port-file", common_.port_file, "File to write the address to, once it is served");
  Text("--metrics-address", common_.metrics_address, "Address to serve /metrics on; port 0 takes a free one");
  Text("--log-level", common_.log_level, "debug, info, warning or error");
  Text("--identities-file", common_.access.identities_file,
       "File with the callers that are known, lines \"<name> <role> <token>\"; read again when it changes");
  Flag("--allow-unauthenticated-loopback", common_.access.allow_unauthenticated_loopback,
       "Callers on this machine are admins without a token; not behind a proxy");
  Duration("--drain-delay", common_.drain_delay,
           "At the end: how long it goes on after it said that it is not ready, so that clients turn to others first",
           absl::ZeroDuration());
  Duration("--drain-timeout", common_.drain_timeout, "At the end: how long work in hand may take");
  Flag("--allow-core-dumps", common_.allow_core_dumps,
       "For debugging: a crash may leave a core file and a debugger may attach; passwords and keys are then readable");
}

CLI::Option* Options::Named(CLI::Option* option, const std::string& flag) {
  std::string name = flag.substr(2);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return c == '-' ? '_' : static_cast<char>(std::toupper(c)); });
  return option->envname(prefix_ + name)->capture_default_str();
}

void Options::Text(const std::string& flag, std::string& value, const std::string& help, bool required) {
  Named(app_.add_option(flag, value, help), flag)->required(required);
}

void Options::Flag(const std::string& flag, bool& value, const std::string& help) {
  Named(app_.add_flag(flag, value, help), flag);
}

void Options::Number(const std::string& flag, int64_t& value, const std::string& help, int64_t low, int64_t high) {
  Named(app_.add_option(flag, value, help), flag)->check(CLI::Range(low, high));
}

void Options::Duration(const std::string& flag, absl::Duration& value, const std::string& help, absl::Duration least) {
  auto parse = [&value, flag, least](const std::string& text) {
    absl::Duration parsed;
    if (!absl::ParseDuration(text, &parsed) || parsed < least) {
      throw CLI::ValidationError(flag, "\"" + text + "\" is no duration; give it like 500ms, 10s or 5m");
    }
    value = parsed;
  };
  CLI::Option* option = app_.add_option_function<std::string>(flag, parse, help);
  Named(option, flag)->default_str(absl::FormatDuration(value));
}

void Options::List(const std::string& flag, const std::string& help,
                   std::function<absl::Status(const std::string&)> take) {
  auto each = [flag, take = std::move(take)](const std::vector<std::string>& entries) {
    for (const std::string& entry : entries) {
      const absl::Status taken = take(entry);
      if (!taken.ok()) throw CLI::ValidationError(flag, std::string(taken.message()));
    }
  };
  Named(app_.add_option_function<std::vector<std::string>>(flag, each, help), flag)
      ->delimiter(',')
      ->allow_extra_args(false);
}

std::optional<int> Options::Parse(int argc, char** argv) {
  try {
    app_.parse(argc, argv);
  } catch (const CLI::Success& done) {
    return app_.exit(done);
  } catch (const CLI::ParseError& mistake) {
    app_.exit(mistake);
    return 2;
  }
  observe::Level level = observe::Level::kInfo;
  if (!observe::ParseLevel(common_.log_level, level)) {
    std::cerr << "--log-level: \"" << common_.log_level << "\" is none of debug, info, warning, error\n";
    return 2;
  }
  observe::SetLogLevel(level);
  return std::nullopt;
}

}  // namespace poststelle::rpc
