// Trying an outbound mailbox's settings, up to a test message.
#pragma once

#include <memory>
#include <string>

#include "libs/net/dialer.h"
#include "libs/probe/step_log.h"
#include "libs/smtp/client.h"

namespace poststelle::sender {

// What every probe shares; owned by main.
struct ProbeContext {
  net::Dialer& dialer;
  std::string ehlo_name;
  absl::Duration connect_timeout = absl::Seconds(15);
  absl::Duration command_timeout = absl::Seconds(30);
};

// One session with a mail server. Tells its steps to the log. Lives on the coroutine that uses it.
class ProbeRun {
 public:
  // `mailbox` holds the password.
  ProbeRun(ProbeContext& context, const config::v1::Mailbox& mailbox, probe::StepLog& log)
      : context_(context), mailbox_(mailbox), log_(log) {}
  // Every step up to the sign-in, and a message to `recipient` if there is one.
  async::Task<void> Test(std::string recipient);

 private:
  // False if a step failed, which the log then knows.
  async::Task<bool> Connect();
  async::Task<void> Send(std::string recipient);
  smtp::ConnectOptions Options() const;
  void OnStep(smtp::Step step);
  bool Fail(const absl::Status& status);
  void NoteTls();

  ProbeContext& context_;
  const config::v1::Mailbox& mailbox_;
  probe::StepLog& log_;
  // Of client_; nullptr while there is none.
  const net::Stream* stream_ = nullptr;
  std::unique_ptr<smtp::Client> client_;
  bool tls_done_ = false;
};

// What docs/errors.md calls a failure of an SMTP session.
std::string FailureReason(const absl::Status& status);

}  // namespace poststelle::sender
