// Child processes that decode mails, watched by the parent.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "libs/async/runtime.h"
#include "libs/mail/parsed_mail.pb.h"

namespace poststelle::parsing {

// Thread-safe. Children start at first use, live over many messages, and are replaced when they die or exceed the time.
class ParserPool {
 public:
  struct Options {
    std::string binary;  // empty: poststelle-parser beside this program
    int children = 2;
    absl::Duration start_limit = absl::Seconds(30);  // until a child says hello
    absl::Duration wall_limit = absl::Seconds(10);   // for one message
    size_t max_message_bytes = 65 << 20;
    uint64_t max_memory_bytes = uint64_t{1} << 30;  // of one child
    int tries = 3;                                  // a message that kills this many children is undecodable (I4)
  };
  ParserPool(asio::any_io_executor executor, Options options);
  ~ParserPool();  // Stop()

  // Decodes `raw`. Does not fail because of the mail: what kills or exhausts its children comes back with what our own
  // scan could read and the mark undecodable. kUnavailable, with the program and the reason, if no child can be started
  // or one can't set up its sandbox: nothing is known about the mail then. kCancelled ends the child.
  async::Task<absl::StatusOr<mail::ParsedMail>> Parse(const std::string& raw);
  // The same for several, in their order: one child decodes them one after the other and is woken once for all. Within
  // kTogetherBytes that costs less than one by one. Where the child does not get through, each is tried alone, so that
  // the guilty one is found. What `raws` points to outlives the call.
  async::Task<absl::StatusOr<std::vector<mail::ParsedMail>>> ParseAll(std::vector<const std::string*> raws);
  static constexpr size_t kTogetherBytes = 256 << 10;
  // Ends the children and waits for their end. Nobody may be parsing.
  void Stop();

 private:
  class Child;
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace poststelle::parsing
