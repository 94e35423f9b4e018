// Resources as YAML documents: what `apply` and `diff` read and `export` writes. A document is the API's own message,
// with `kind: Mailbox` (or TicketStatus, Label) before it:
//
//   kind: Mailbox
//   name: mailboxes/support
//   direction: inbound                  # enums by their short or full name
//   connection: {host: imap.example.org}
//   passwordAuthentication:
//     password: {env: SUPPORT_PASSWORD} # or {file: PATH}; never the password itself
//   importOptions: {fetchInterval: 5m}
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/message.h"

namespace poststelle::cli {

// Where a password is to be taken from when a document is applied.
struct SecretReference {
  std::string variable;  // of the environment; empty if it is a file
  std::string path;
  std::string where;  // "file:line:column", for messages
};

// One document.
struct Document {
  std::string kind;
  std::unique_ptr<google::protobuf::Message> message;
  std::vector<SecretReference> secrets;  // one at most: of password_authentication.password
  std::string where;                     // "file:line:column" of its beginning
};

// Reads all documents of `text`. kInvalidArgument names file, line and column of the first mistake: syntax, an unknown
// or repeated key, a wrong type, a value of the service's own, a password in clear, more than a million nodes (aliases
// counted each time), nesting above 32.
absl::StatusOr<std::vector<Document>> ReadDocuments(const std::string& text, const std::string& file);

// `message` as a document, without what the service alone decides; where a password is stored, a reference to the
// variable `password_variable`.
std::string WriteDocument(const std::string& kind, const google::protobuf::Message& message,
                          const std::string& password_variable);

}  // namespace poststelle::cli
