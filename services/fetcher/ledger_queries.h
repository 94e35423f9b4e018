// What people and programs ask of the ledger: messages, outcomes, tickets, quarantine. SQL to protos, no gRPC.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "libs/async/runtime.h"
#include "libs/sql/database.h"
#include "poststelle/fetcher/v1/message.pb.h"
#include "poststelle/fetcher/v1/quarantine_service.pb.h"
#include "poststelle/fetcher/v1/ticket.pb.h"
#include "services/fetcher/ledger.h"

namespace poststelle::fetcher {

// Read-only. Ids are the last part of resource names. NotFound names what is missing. Thread-safe.
class LedgerQueries {
 public:
  LedgerQueries(sql::Database& database, blob::Store& raw) : database_(database), raw_(raw) {}

  struct StoredMessage {
    v1::Message message;
    v1::Outcome outcome;
  };
  async::Task<absl::StatusOr<StoredMessage>> GetMessage(std::string message_id);

  // Outcomes of the rows with this Message-ID (without angle brackets), oldest first, at most 100.
  async::Task<absl::StatusOr<std::vector<v1::Outcome>>> OutcomesOf(MailboxKey mailbox, std::string internet_message_id);
  // The outcome of one UID, if the ledger has a row for it.
  async::Task<absl::StatusOr<std::optional<v1::Outcome>>> OutcomeOf(FolderKey folder, uint32_t uid_validity,
                                                                    uint32_t uid);

  // Where a page begins: behind this key. Empty: at the newest.
  struct After {
    int64_t time = 0;
    std::string id;
  };
  async::Task<absl::StatusOr<std::vector<v1::Ticket>>> ListTickets(std::string mailbox_id, std::optional<After> after,
                                                                   int limit);
  async::Task<absl::StatusOr<v1::Ticket>> GetTicket(std::string ticket_id);
  async::Task<absl::StatusOr<std::vector<v1::QuarantinedMessage>>> ListQuarantined(std::string mailbox_id,
                                                                                   std::optional<After> after,
                                                                                   int limit);
  async::Task<absl::StatusOr<v1::QuarantinedMessage>> GetQuarantined(std::string message_id);

  struct RawInfo {
    std::string sha256;  // 32 bytes
    int64_t size = 0;
    int chunks = 0;
  };
  // NotFound (RAW_NOT_STORED or MESSAGE_NOT_FOUND by its reason payload) where there are no bytes.
  async::Task<absl::StatusOr<RawInfo>> FindRaw(std::string message_id);
  async::Task<absl::StatusOr<std::string>> ReadRawChunk(std::string sha256, int index);

 private:
  sql::Database& database_;
  blob::Store& raw_;
};

// Milliseconds of a timestamp, for page keys.
int64_t ToMs(const google::protobuf::Timestamp& time);
// The other way round.
void SetMs(google::protobuf::Timestamp* out, int64_t ms);

}  // namespace poststelle::fetcher
