#include "libs/observe/log.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace poststelle::observe {
namespace {

constexpr std::array<const char*, 4> kNames = {"debug", "info", "warning", "error"};
std::atomic<Level> threshold{Level::kInfo};

}  // namespace

void SetLogLevel(Level level) { threshold = level; }

bool Logs(Level level) { return level >= threshold; }

bool ParseLevel(std::string_view text, Level& level) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (text != kNames[i]) continue;
    level = static_cast<Level>(i);
    return true;
  }
  return false;
}

void Log(Level level, std::string_view event, const nlohmann::json& fields) {
  if (!Logs(level)) return;
  nlohmann::ordered_json line;
  line["time"] = absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
  line["level"] = kNames[static_cast<size_t>(level)];
  line["event"] = std::string(event);
  for (const auto& [key, value] : fields.items()) line[key] = value;
  std::string text = line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.push_back('\n');
  size_t at = 0;
  while (at < text.size()) {
    const ssize_t n = write(STDERR_FILENO, text.data() + at, text.size() - at);
    if (n <= 0) return;  // nobody reads our log: there is nowhere left to say so
    at += static_cast<size_t>(n);
  }
}

}  // namespace poststelle::observe
