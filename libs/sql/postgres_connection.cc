#include "libs/sql/postgres_connection.h"

#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <asio/dispatch.hpp>
#include <asio/experimental/as_tuple.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <cstdlib>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "libs/base/status_macros.h"
#include "libs/base/sv.h"

namespace poststelle::sql {
namespace {

constexpr auto kUse = asio::experimental::as_tuple(asio::use_awaitable);
// Statements are literals of this program; whatever comes after this many is run without being kept.
constexpr size_t kMaxStatements = 512;

struct FreeResult {
  void operator()(PGresult* result) const { PQclear(result); }
};
using ResultPtr = std::unique_ptr<PGresult, FreeResult>;

// The types that an answer may have (pg_type.dat; their numbers never change).
constexpr Oid kBool = 16;
constexpr Oid kBytea = 17;
constexpr Oid kInt8 = 20;
constexpr Oid kInt2 = 21;
constexpr Oid kInt4 = 23;
constexpr Oid kText = 25;
constexpr Oid kVarchar = 1043;
constexpr Oid kVoid = 2278;

// Lives until the last handler of a wait has run.
struct Watch {
  explicit Watch(const asio::any_io_executor& executor) : descriptor(executor), timer(executor) {}
  asio::posix::stream_descriptor descriptor;
  asio::steady_timer timer;
  bool ready = false;
};

// Until `fd` can be read (or written, if asked for): true; at `deadline`: false. The descriptor is handed over for each
// wait alone, because libpq may close it and open another one under the same number.
async::Task<bool> WaitFor(int fd, bool read, bool write, std::chrono::steady_clock::time_point deadline) {
  co_await asio::dispatch(asio::use_awaitable);
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  const auto watch = std::make_shared<Watch>(executor);
  asio::error_code failed;
  if (fd >= 0) watch->descriptor.assign(fd, failed);
  if (fd < 0 || failed) co_return true;  // libpq finds out what is wrong with it
  watch->timer.expires_at(deadline);
  // On this coroutine's executor, so that it can't run before the wait below has begun.
  const auto wake = [watch](asio::error_code error) {
    if (error == asio::error::operation_aborted) return;
    watch->ready = true;
    watch->timer.cancel();
  };
  if (read) watch->descriptor.async_wait(asio::posix::stream_descriptor::wait_read, wake);
  if (write) watch->descriptor.async_wait(asio::posix::stream_descriptor::wait_write, wake);
  co_await watch->timer.async_wait(kUse);
  watch->descriptor.release();
  co_return watch->ready;
}

std::chrono::steady_clock::time_point In(absl::Duration duration) {
  return std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(duration);
}

std::string Milliseconds(absl::Duration duration) { return std::to_string(absl::ToInt64Milliseconds(duration)); }

absl::Status ToStatus(std::string_view state, const std::string& text) {
  if (state == "23505") return absl::AlreadyExistsError(text);
  if (state == "25P02") return absl::AbortedError(text);
  if (state == "08P01") return absl::InternalError(text);  // a defect of ours
  // Cancelled by the statement time-out, lock not available, transaction idle for too long; it passes.
  for (const std::string_view passing : {"57014", "55P03", "25P03"}) {
    if (state == passing) return absl::UnavailableError(text);
  }
  // Connection, transaction rollback, resources, operator intervention, system error.
  for (const std::string_view passing : {"08", "40", "53", "57", "58"}) {
    if (state.starts_with(passing)) return absl::UnavailableError(text);
  }
  // Data exception, integrity, a row that exceeds a limit of the server.
  for (const std::string_view refused : {"22", "23", "54"}) {
    if (state.starts_with(refused)) return absl::InvalidArgumentError(text);
  }
  return absl::InternalError(text);
}

int64_t BigEndian(const char* bytes, int size) {
  // From the sign of the first byte on.
  int64_t value = size > 0 && static_cast<signed char>(bytes[0]) < 0 ? -1 : 0;
  for (int i = 0; i < size; ++i) value = value * 256 + static_cast<unsigned char>(bytes[i]);
  return value;
}

absl::StatusOr<Value> Decode(const PGresult* answer, int row, int column) {
  if (PQgetisnull(answer, row, column) != 0) return std::monostate{};
  const char* bytes = PQgetvalue(answer, row, column);
  const int size = PQgetlength(answer, row, column);
  switch (PQftype(answer, column)) {
    case kBool:
    case kInt2:
    case kInt4:
    case kInt8:
      return BigEndian(bytes, size);
    case kText:
    case kVarchar:
      return std::string(bytes, static_cast<size_t>(size));
    case kBytea:
      return Blob{std::string(bytes, static_cast<size_t>(size))};
    case kVoid:
      return std::monostate{};
    default:
      return absl::InternalError(absl::StrCat("column ", PQfname(answer, column), " has type ", PQftype(answer, column),
                                              ", which this layer does not read; CAST it"));
  }
}

// Parameters as libpq takes them; the types are left to the server, which infers them from the statement.
struct Encoded {
  std::vector<std::string> numbers;
  std::vector<const char*> values;
  std::vector<int> lengths;
  std::vector<int> formats;  // 0 text, 1 binary
};

// `out` refers to `params`.
absl::Status Encode(const std::vector<Value>& params, size_t count, Encoded& out) {
  out.numbers.reserve(count);  // its strings must not move
  for (size_t i = 0; i < count; ++i) {
    const char* value = nullptr;
    size_t length = 0;
    int format = 0;
    if (const auto* number = std::get_if<int64_t>(&params[i])) {
      value = out.numbers.emplace_back(std::to_string(*number)).c_str();
    } else if (const auto* text = std::get_if<std::string>(&params[i])) {
      if (text->find('\0') != std::string::npos) {
        return absl::InvalidArgumentError(absl::StrCat("parameter $", i + 1, " is text with a NUL byte"));
      }
      value = text->c_str();
    } else if (const auto* blob = std::get_if<Blob>(&params[i])) {
      value = blob->bytes.data();
      length = blob->bytes.size();
      format = 1;
    }
    if (length > (size_t{1} << 30))
      return absl::InvalidArgumentError(absl::StrCat("parameter $", i + 1, " is too big"));
    out.values.push_back(value);
    out.lengths.push_back(static_cast<int>(length));
    out.formats.push_back(format);
  }
  return absl::OkStatus();
}

void Ignore(void*, const char*) {}

}  // namespace

StatementShape ShapeOf(std::string_view sql) {
  StatementShape shape;
  bool ended = false;
  for (size_t i = 0; i < sql.size();) {
    const std::string_view rest = sql.substr(i);
    if (rest.starts_with("--")) {
      i = std::min(sql.find('\n', i), sql.size());
      continue;
    }
    if (ended && absl::ascii_isspace(static_cast<unsigned char>(sql[i])) == 0) shape.single = false;
    if (const size_t quoted = QuotedLength(rest); quoted > 0) {
      i += quoted;
      continue;
    }
    if (sql[i] == ';') ended = true;
    ++i;
    if (rest[0] != '$') continue;
    size_t number = 0;
    while (i < sql.size() && absl::ascii_isdigit(static_cast<unsigned char>(sql[i])) != 0 && number < 100'000) {
      number = number * 10 + static_cast<size_t>(sql[i++] - '0');
    }
    shape.parameters = std::max(shape.parameters, number);
  }
  return shape;
}

// What was sent and is answered in this order.
struct PostgresConnection::Command {
  std::string name;          // of the prepared statement, empty for one that is not kept
  std::string_view prepare;  // its text, if this command prepares it
  size_t parameters = 0;     // of what it prepares
};

PostgresConnection::PostgresConnection(PostgresOptions options) : options_(options) {}

PostgresConnection::~PostgresConnection() { PQfinish(connection_); }

async::Task<absl::StatusOr<std::unique_ptr<PostgresConnection>>> PostgresConnection::Connect(std::string url,
                                                                                             PostgresOptions options) {
  auto connection = std::make_unique<PostgresConnection>(options);
  PS_CO_RETURN_IF_ERROR(co_await connection->ConnectInto(std::move(url)));
  co_return connection;
}

async::Task<absl::Status> PostgresConnection::ConnectInto(std::string url) {
  const std::array<const char*, 4> keywords = {"dbname", "fallback_application_name", "client_encoding", nullptr};
  const std::array<const char*, 4> values = {url.c_str(), "poststelle", "UTF8", nullptr};
  const auto deadline = In(options_.connect_timeout);
  connection_ = PQconnectStartParams(keywords.data(), values.data(), 1);
  if (connection_ == nullptr) co_return absl::UnavailableError("can't connect to the database: out of memory");
  PQsetNoticeProcessor(connection_, Ignore, nullptr);
  PostgresPollingStatusType next =
      PQstatus(connection_) == CONNECTION_BAD ? PGRES_POLLING_FAILED : PGRES_POLLING_WRITING;
  while (next != PGRES_POLLING_OK) {
    if (next == PGRES_POLLING_FAILED) co_return Lost("can't connect to the database");
    const bool read = next == PGRES_POLLING_READING;
    if (!co_await WaitFor(PQsocket(connection_), read, !read, deadline)) {
      broken_ = true;
      co_return absl::UnavailableError(absl::StrCat("can't connect to the database: no answer within ",
                                                    absl::FormatDuration(options_.connect_timeout)));
    }
    next = PQconnectPoll(connection_);
  }
  if (PQsetnonblocking(connection_, 1) != 0 || PQenterPipelineMode(connection_) != 1) {
    co_return Lost("can't set up the database connection");
  }
  std::vector<Statement> setup(1);
  setup[0].sql =
      "SELECT set_config('statement_timeout', $1, false), set_config('lock_timeout', $2, false), "
      "set_config('idle_in_transaction_session_timeout', $3, false), set_config('synchronous_commit', 'on', false), "
      // The server's own compression of long values costs a seventh of a publication; lz4, where it is built in,
      // little.
      "(SELECT set_config(name, 'lz4', false) FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = "
      "ANY(enumvals))";
  setup[0].params = {Milliseconds(options_.statement_timeout), Milliseconds(options_.lock_timeout),
                     Milliseconds(options_.idle_timeout)};
  co_return (co_await Exchange(setup)).status();
}

PostgresConnection::Block PostgresConnection::block() const {
  switch (PQtransactionStatus(connection_)) {
    case PQTRANS_IDLE:
      return Block::kNone;
    case PQTRANS_INTRANS:
      return Block::kOpen;
    default:
      return Block::kFailed;
  }
}

bool PostgresConnection::broken() const { return broken_ || PQstatus(connection_) != CONNECTION_OK; }

bool PostgresConnection::Stale() const {
  pollfd socket{PQsocket(connection_), POLLIN, 0};
  return broken() || poll(&socket, 1, 0) != 0;
}

absl::Status PostgresConnection::Lost(std::string_view what) {
  broken_ = true;
  const std::string words(absl::StripAsciiWhitespace(PQerrorMessage(connection_)));
  return absl::UnavailableError(absl::StrCat(Av(what), words.empty() ? "" : ": ", words));
}

absl::Status PostgresConnection::Failure(const PGresult* answer) {
  const char* state = PQresultErrorField(answer, PG_DIAG_SQLSTATE);
  if (state == nullptr) return Lost("the connection to the database was lost");
  sqlstate_ = state;
  // The primary message alone: the details may repeat what is in the row.
  const char* words = PQresultErrorField(answer, PG_DIAG_MESSAGE_PRIMARY);
  return ToStatus(sqlstate_, absl::StrCat(words == nullptr ? "the database refused it" : words, " (", sqlstate_, ")"));
}

absl::Status PostgresConnection::Send(const std::vector<Statement>& statements, std::vector<Command>& commands) {
  std::vector<Encoded> encoded(statements.size());
  std::vector<const Prepared*> known(statements.size());  // stay where they are: none is added before the answers come
  for (size_t i = 0; i < statements.size(); ++i) {
    if (auto it = prepared_.find(statements[i].sql); it != prepared_.end()) known[i] = &it->second;
    StatementShape shape;
    if (known[i] != nullptr) {
      shape.parameters = known[i]->parameters;
    } else {
      shape = ShapeOf(statements[i].sql);
    }
    if (!shape.single) return absl::InvalidArgumentError("Execute takes one statement");
    if (shape.parameters > statements[i].params.size()) {
      return absl::InvalidArgumentError(absl::StrCat("parameter $", statements[i].params.size() + 1, " has no value"));
    }
    PS_RETURN_IF_ERROR(Encode(statements[i].params, shape.parameters, encoded[i]));
  }
  ++exchanges_;
  std::unordered_map<std::string_view, std::string> fresh;
  for (size_t i = 0; i < statements.size(); ++i) {
    const Encoded& e = encoded[i];
    const auto count = static_cast<int>(e.values.size());
    std::string name;
    if (known[i] != nullptr) {
      name = known[i]->name;
    } else if (auto sent = fresh.find(statements[i].sql); sent != fresh.end()) {
      name = sent->second;
    } else if (prepared_.size() + fresh.size() < kMaxStatements) {
      name = absl::StrCat("s", exchanges_, "_", i);
      fresh.emplace(statements[i].sql, name);
      const std::string text(statements[i].sql);
      if (PQsendPrepare(connection_, name.c_str(), text.c_str(), 0, nullptr) != 1) return Lost("can't send");
      Command prepare{name, statements[i].sql, e.values.size()};
      commands.push_back(std::move(prepare));
    }
    const int sent = name.empty() ? PQsendQueryParams(connection_, std::string(statements[i].sql).c_str(), count,
                                                      nullptr, e.values.data(), e.lengths.data(), e.formats.data(), 1)
                                  : PQsendQueryPrepared(connection_, name.c_str(), count, e.values.data(),
                                                        e.lengths.data(), e.formats.data(), 1);
    if (sent != 1) return Lost("can't send");
    Command run{std::move(name), {}, 0};
    commands.push_back(std::move(run));
  }
  return PQpipelineSync(connection_) == 1 ? absl::OkStatus() : Lost("can't send");
}

async::Task<absl::Status> PostgresConnection::AwaitResult() {
  // Anew for every answer: the server bounds each statement by itself.
  const auto deadline = In(options_.statement_timeout + options_.answer_margin);
  while (true) {
    const int unsent = PQflush(connection_);
    if (unsent == 0 && PQisBusy(connection_) == 0) co_return absl::OkStatus();
    if (unsent < 0) {
      // What the server said before it hung up may still be there.
      PQconsumeInput(connection_);
      if (PQisBusy(connection_) == 0) co_return absl::OkStatus();
      co_return Lost("the connection to the database was lost");
    }
    if (!co_await WaitFor(PQsocket(connection_), true, unsent > 0, deadline)) {
      broken_ = true;
      co_return absl::UnavailableError("the database did not answer in time");
    }
    // A failure shows up as the result of the command.
    if (PQconsumeInput(connection_) != 1 && PQisBusy(connection_) != 0) {
      co_return Lost("the connection to the database was lost");
    }
  }
}

absl::Status PostgresConnection::Take(const Command& command, const PGresult* answer, std::vector<Result>& results) {
  switch (PQresultStatus(answer)) {
    case PGRES_COMMAND_OK:
    case PGRES_TUPLES_OK:
      break;
    case PGRES_EMPTY_QUERY:
      return absl::InvalidArgumentError("Execute takes one statement");
    case PGRES_FATAL_ERROR:
      return Failure(answer);
    case PGRES_PIPELINE_ABORTED:
      return absl::AbortedError("skipped");  // a failure before it is what counts
    default:
      return absl::InternalError(absl::StrCat("unexpected answer ", PQresStatus(PQresultStatus(answer))));
  }
  if (!command.prepare.empty()) {
    Prepared prepared{command.name, command.parameters};
    prepared_.emplace(std::string(command.prepare), std::move(prepared));
    return absl::OkStatus();
  }
  Result& result = results.emplace_back();
  const int rows = PQntuples(answer);
  const int columns = PQnfields(answer);
  result.rows.reserve(static_cast<size_t>(rows));
  for (int r = 0; r < rows; ++r) {
    std::vector<Value> row;
    row.reserve(static_cast<size_t>(columns));
    for (int c = 0; c < columns; ++c) {
      PS_ASSIGN_OR_RETURN(Value value, Decode(answer, r, c));
      row.push_back(std::move(value));
    }
    result.rows.emplace_back(std::move(row));
  }
  const std::string_view tag = PQcmdStatus(const_cast<PGresult*>(answer));
  for (const std::string_view change : {"INSERT", "UPDATE", "DELETE", "MERGE"}) {
    if (tag.starts_with(change)) result.changed = std::atoll(PQcmdTuples(const_cast<PGresult*>(answer)));
  }
  return absl::OkStatus();
}

async::Task<absl::StatusOr<std::vector<Result>>> PostgresConnection::Exchange(
    const std::vector<Statement>& statements) {
  sqlstate_.clear();
  if (broken()) co_return absl::UnavailableError("the connection to the database is lost");
  std::vector<Command> commands;
  PS_CO_RETURN_IF_ERROR(Send(statements, commands));
  std::vector<Result> results;
  absl::Status failure;
  for (const Command& command : commands) {
    while (true) {
      absl::Status ready = co_await AwaitResult();
      if (!ready.ok()) co_return failure.ok() ? ready : failure;
      const ResultPtr answer(PQgetResult(connection_));
      if (answer == nullptr) break;  // the end of this command's answers
      absl::Status taken = Take(command, answer.get(), results);
      if (failure.ok()) failure = taken;
      if (broken()) {
        broken_ = true;
        co_return failure.ok() ? Lost("the connection to the database was lost") : failure;
      }
    }
  }
  absl::Status ready = co_await AwaitResult();
  if (!ready.ok()) co_return failure.ok() ? ready : failure;
  const ResultPtr end(PQgetResult(connection_));
  if (end == nullptr || PQresultStatus(end.get()) != PGRES_PIPELINE_SYNC) {
    absl::Status lost = Lost("the connection to the database was lost");
    co_return failure.ok() ? lost : failure;
  }
  if (!failure.ok()) co_return failure;
  co_return results;
}

}  // namespace poststelle::sql
