#include "libs/redis/routed_commands.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "libs/base/status_macros.h"
#include "libs/redis/slot.h"

namespace poststelle::redis {
namespace {

// Their key is not the second argument, or they change the state of a connection that many share.
constexpr std::array<std::string_view, 16> kRefused{
    "EVAL",  "EVALSHA", "FCALL", "XREAD",     "XREADGROUP", "MULTI",   "EXEC",  "WATCH",
    "BLPOP", "BRPOP",   "WAIT",  "SUBSCRIBE", "PSUBSCRIBE", "MONITOR", "RESET", "SELECT"};

}  // namespace

async::Task<absl::StatusOr<Reply>> RoutedCommands::Command(std::vector<std::string> arguments) {
  if (arguments.empty()) co_return absl::InvalidArgumentError("an empty command");
  const std::string name = absl::AsciiStrToUpper(arguments.front());
  if (std::find(kRefused.begin(), kRefused.end(), name) != kRefused.end()) {
    co_return absl::InvalidArgumentError(absl::StrCat(name, " can't be sent over a shared connection by its key"));
  }
  const int slot = arguments.size() > 1 ? SlotOf(std::string_view(arguments[1])) : -1;
  PS_CO_ASSIGN_OR_RETURN(Answer answer, co_await Route(slot, Format(arguments), absl::Now() + timeout_));
  co_return ToResult(std::move(answer));
}

async::Task<absl::StatusOr<Reply>> RoutedCommands::Eval(const std::string& script, std::vector<std::string> keys,
                                                        std::vector<std::string> arguments) {
  PS_CO_ASSIGN_OR_RETURN(const int slot, SlotOf(keys));
  const absl::Time deadline = absl::Now() + timeout_;
  std::vector<std::string> command{"EVALSHA", hashes_.Of(script), std::to_string(keys.size())};
  command.insert(command.end(), keys.begin(), keys.end());
  command.insert(command.end(), arguments.begin(), arguments.end());
  PS_CO_ASSIGN_OR_RETURN(Answer answer, co_await Route(slot, Format(command), deadline));
  if (ErrorCode(answer.error) == "NOSCRIPT") {  // restarted, or the scripts were flushed; EVAL teaches it again
    command[0] = "EVAL";
    command[1] = script;
    PS_CO_ASSIGN_OR_RETURN(answer, co_await Route(slot, Format(command), deadline));
  }
  co_return ToResult(std::move(answer));
}

}  // namespace poststelle::redis
