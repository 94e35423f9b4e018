// The options by which a mailbox is described on the command line.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "poststelle/config/v1/mailbox.pb.h"

namespace poststelle::cli {

// What was not given stays out of the mask.
struct MailboxOptions {
  std::string display_name, address, host, encryption, ca_file, pin, login, password_file, interval, id, etag;
  std::string reply_via, new_status, reply_status, after_import, target_folder;
  std::vector<std::string> folders, ticket_labels, labels;
  int port = 0;
  int max_age_days = 0;
  bool outbound = false, suggest = false, unlimited_age = false, also_read = false, unread_only = false,
       disabled = false, enabled = false, password_stdin = false, no_reply_via = false, no_new_status = false,
       no_reply_status = false, no_ticket_labels = false, no_labels = false;
};

void AddOptions(CLI::App* command, MailboxOptions& options);

// Fills a mailbox from the options and adds the paths that were given; false, with a message on standard error, if one
// makes no sense.
bool Fill(const MailboxOptions& options, config::v1::Mailbox& mailbox, std::vector<std::string>& paths);

}  // namespace poststelle::cli
