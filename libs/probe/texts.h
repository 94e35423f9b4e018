// What is said to a person about a step that failed or that went well with a reservation.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "poststelle/config/v1/mailbox_probe.pb.h"

namespace poststelle::probe {

using Step = config::v1::TestStep;

// Words for the {placeholders} of a text.
using Words = std::map<std::string, std::string>;

// Fills in explanation and remedy, in German and English, for the step's reason and kind. A reason without a text of
// its own gets a general one.
void Explain(const Words& words, Step& step);

// Every reason that has texts, for the check that docs/errors.md has it too.
std::vector<std::string> ReasonsWithTexts();

}  // namespace poststelle::probe
