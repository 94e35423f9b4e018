// Child processes that decode mails, watched by the parent.
#pragma once

#include <memory>
#include <string>

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
    absl::Duration wall_limit = absl::Seconds(10);  // for one message
    size_t max_message_bytes = 65 << 20;
    int tries = 3;  // a message that kills this many children is undecodable (I4)
  };
  ParserPool(asio::any_io_executor executor, Options options);
  ~ParserPool();  // Stop()

  // Decodes `raw`. Never fails because of the mail: what kills or exhausts its children comes back with what our own
  // scan could read and the mark undecodable.
  async::Task<mail::ParsedMail> Parse(const std::string& raw);
  // Ends the children. Nobody may be parsing.
  void Stop();

 private:
  class Child;
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace poststelle::parsing
