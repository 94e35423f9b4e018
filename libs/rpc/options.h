// Options of a service: flags that are also environment variables.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "libs/rpc/access.h"

namespace poststelle::rpc {

// What every service has.
struct CommonOptions {
  std::string listen = "127.0.0.1:0";
  std::string port_file;
  std::string metrics_address = "127.0.0.1:0";
  std::string log_level = "info";
  AccessOptions access;
  absl::Duration drain_delay = absl::ZeroDuration();
  absl::Duration drain_timeout = absl::Seconds(25);
  bool allow_core_dumps = false;
};

// Collects the options of one service. `--max-sessions` is also POSTSTELLE_FETCHER_MAX_SESSIONS for the service
// "fetcher".
class Options {
 public:
  Options(const std::string& service, const std::string& description);
  void Text(const std::string& flag, std::string& value, const std::string& help, bool required = false);
  void Number(const std::string& flag, int64_t& value, const std::string& help, int64_t low, int64_t high);
  // Given alone it is on; the environment variable takes true and false.
  void Flag(const std::string& flag, bool& value, const std::string& help);
  // "10s", "500ms", "5m"; not shorter than `least`.
  void Duration(const std::string& flag, absl::Duration& value, const std::string& help,
                absl::Duration least = absl::Nanoseconds(1));
  // Any number of entries, the flag repeated or the entries separated by commas; `take` gets each one and says what is
  // wrong with it.
  void List(const std::string& flag, const std::string& help, std::function<absl::Status(const std::string&)> take);
  CommonOptions& common() { return common_; }
  // Empty to go on; otherwise the exit code (0 after --help and --version, 2 after a mistake, which is then on stderr).
  std::optional<int> Parse(int argc, char** argv);

 private:
  CLI::Option* Named(CLI::Option* option, const std::string& flag);
  CLI::App app_;
  const std::string prefix_;
  CommonOptions common_;
};

}  // namespace poststelle::rpc
