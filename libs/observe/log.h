// Structured logs: one JSON object a line on standard error.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace poststelle::observe {

enum class Level { kDebug, kInfo, kWarning, kError };

// Lines below `level` are dropped. Set once at start.
void SetLogLevel(Level level);
// Whether a line of this level would be written: before fields that cost something to make.
bool Logs(Level level);
// "debug", "info", "warning", "error"; false for anything else.
bool ParseLevel(std::string_view text, Level& level);

// Writes {"time", "level", "event", …fields}. `event` names what happened in dotted words ("poll.failed"). Invalid
// UTF-8 is replaced; a line is one write(2), so that lines of threads never mix. Thread-safe.
void Log(Level level, std::string_view event, const nlohmann::json& fields = nlohmann::json::object());

}  // namespace poststelle::observe
