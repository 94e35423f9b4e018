// What an entry of a catalogue must be.
#pragma once

#include <string>
#include <vector>

#include "libs/rpc/status.h"
#include "services/config/catalogue_store.h"

namespace poststelle::config {

// Every bad field by its path under `field` ("label.german_name"). An empty colour is fine.
std::vector<rpc::Violation> CheckEntry(const CatalogueEntry& entry, const std::string& field);

// What a list may be searched for.
void CheckSearch(const std::string& text, std::vector<rpc::Violation>& violations);

}  // namespace poststelle::config
