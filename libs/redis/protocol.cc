#include "libs/redis/protocol.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace poststelle::redis {

// What the reader's callbacks build; hiredis hands them `privdata`.
struct AnswerReader::Building {
  size_t elements = 0;  // of this answer so far
  std::string error;    // first one in this answer
};

void AnswerReader::Delete::operator()(Building* building) const { delete building; }

namespace {

using Building = AnswerReader::Building;

Building& BuildingOf(const redisReadTask* task) { return *static_cast<Building*>(task->privdata); }

// hiredis reads depth first and asks for each object once; an element's place in its array is there already.
Reply* Place(const redisReadTask* task) {
  if (task->parent == nullptr) return new Reply;
  return &static_cast<Reply*>(task->parent->obj)->array[static_cast<size_t>(task->idx)];
}

void* CreateString(const redisReadTask* task, char* text, size_t size) {
  if (task->type == REDIS_REPLY_ERROR) {
    Building& building = BuildingOf(task);
    if (building.error.empty()) {
      building.error.assign(text, std::min(size, AnswerReader::kMaxErrorText));
      if (building.error.empty()) building.error = "ERR";
    }
    return Place(task);
  }
  Reply* reply = Place(task);
  reply->kind = Reply::Kind::kString;
  reply->string.assign(text, size);
  return reply;
}

void* CreateArray(const redisReadTask* task, int elements) {
  Building& building = BuildingOf(task);
  if (elements < 0) return nullptr;
  building.elements += static_cast<size_t>(elements);
  if (building.elements > AnswerReader::kMaxElements) return nullptr;  // nullptr: hiredis gives up
  Reply* reply = Place(task);
  reply->kind = Reply::Kind::kArray;
  reply->array.resize(static_cast<size_t>(elements));
  return reply;
}

void* CreateInteger(const redisReadTask* task, long long value) {
  Reply* reply = Place(task);
  reply->kind = Reply::Kind::kInteger;
  reply->integer = value;
  return reply;
}

void* CreateNil(const redisReadTask* task) { return Place(task); }

void FreeObject(void* root) { delete static_cast<Reply*>(root); }

redisReplyObjectFunctions functions{CreateString, CreateArray, CreateInteger, CreateNil, FreeObject};

}  // namespace

std::string Format(const std::vector<std::string>& arguments) {
  std::string out = absl::StrCat("*", arguments.size(), "\r\n");
  for (const std::string& argument : arguments) {
    absl::StrAppend(&out, "$", argument.size(), "\r\n", argument, "\r\n");
  }
  return out;
}

std::string ErrorCode(std::string_view error) {
  // Redis before 7: "ERR Error running script (call to f_…): @user_script:1: -OOM command not allowed …"
  if (error.starts_with("ERR Error running script")) {
    for (size_t at = error.find(" -"); at != std::string_view::npos; at = error.find(" -", at + 1)) {
      std::string_view word = error.substr(at + 2);
      word = word.substr(0, word.find(' '));
      if (word.size() > 2 && std::all_of(word.begin(), word.end(), [](char c) { return c >= 'A' && c <= 'Z'; })) {
        return std::string(word);
      }
    }
  }
  return std::string(error.substr(0, error.find(' ')));
}

absl::StatusOr<Reply> ToResult(Answer answer) {
  if (answer.error.empty()) return std::move(answer.reply);
  const std::string code = ErrorCode(answer.error);
  if (code == "NOSCRIPT") return absl::NotFoundError(answer.error);
  const std::string text = absl::StrCat("Redis: ", answer.error);
  if (code == "NOAUTH" || code == "WRONGPASS" || code == "NOPERM") return absl::FailedPreconditionError(text);
  for (const char* passing : {"LOADING", "READONLY", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "OOM",
                              "BUSY", "MISCONF", "UNKILLABLE", "NOREPLICAS"}) {
    if (code == passing) return absl::UnavailableError(text);
  }
  return absl::InternalError(text);
}

AnswerReader::AnswerReader()
    : building_(new Building), reader_(redisReaderCreateWithFunctions(&functions), redisReaderFree) {
  reader_->privdata = building_.get();  // hiredis' macro for it casts the pointer to int
}

void AnswerReader::Feed(std::string_view bytes) {
  redisReaderFeed(reader_.get(), bytes.data(), bytes.size());
  since_answer_ += bytes.size();
}

absl::StatusOr<std::optional<Answer>> AnswerReader::Next() {
  void* raw = nullptr;
  if (redisReaderGetReply(reader_.get(), &raw) != REDIS_OK) {
    if (building_->elements > kMaxElements) {
      return absl::UnavailableError(absl::StrCat("Redis sent an answer of more than ", kMaxElements, " elements"));
    }
    return absl::UnavailableError(absl::StrCat("Redis sent garbage: ", reader_->errstr));
  }
  if (raw == nullptr) {
    if (since_answer_ > kMaxBytes) {
      return absl::UnavailableError(absl::StrCat("Redis sent an answer of more than ", kMaxBytes >> 20, " MiB"));
    }
    return std::nullopt;
  }
  std::unique_ptr<Reply> reply(static_cast<Reply*>(raw));
  Answer answer{std::move(*reply), std::move(building_->error)};
  *building_ = Building();
  since_answer_ = reader_->len - reader_->pos;
  return std::optional<Answer>(std::move(answer));
}

}  // namespace poststelle::redis
