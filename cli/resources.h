// Everything that can be written as YAML, as the config service has it.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cli/context.h"
#include "google/protobuf/message.h"

namespace poststelle::cli {

// `name` and `etag` of a mailbox or of an entry of a catalogue.
std::string NameOf(const google::protobuf::Message& message);
std::string EtagOf(const google::protobuf::Message& message);

// Mailboxes, ticket statuses and labels.
class Resources {
 public:
  explicit Resources(const Context& context) : context_(context) {}

  // Reads all of them.
  grpc::Status Load();
  // A copy of the one called `name`; nullptr if there is none.
  std::unique_ptr<google::protobuf::Message> Find(const std::string& name) const;
  template <typename T>
  std::unique_ptr<T> FindAs(const std::string& name) const {
    std::unique_ptr<google::protobuf::Message> found = Find(name);
    return std::unique_ptr<T>(dynamic_cast<T*>(found.release()));
  }
  // Creates or replaces it; `message` becomes what the service made of it. `only_try`: nothing changes.
  grpc::Status Put(google::protobuf::Message& message, bool only_try);
  // With their kinds, in an order in which they can be applied.
  std::vector<std::pair<std::string, const google::protobuf::Message*>> All() const;

 private:
  const Context& context_;
  std::map<std::string, std::unique_ptr<google::protobuf::Message>> all_;  // by name
};

}  // namespace poststelle::cli
