// What the services of both catalogues do. `Api` names the messages of one of them (catalogue_services.h).
#pragma once

#include <google/protobuf/util/time_util.h>

#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "libs/base/ids.h"
#include "libs/base/page_budget.h"
#include "libs/base/sv.h"
#include "libs/rpc/page_token.h"
#include "libs/rpc/status.h"
#include "services/config/catalogue_store.h"
#include "services/config/catalogue_validator.h"
#include "services/config/field_paths.h"
#include "services/config/mailbox_validator.h"

namespace poststelle::config {

template <typename Api>
class CatalogueHandlers {
 public:
  using Entry = typename Api::Entry;

  CatalogueHandlers(CatalogueStore& store, const std::string& epoch) : store_(store), epoch_(epoch) {}

  async::Task<grpc::Status> Create(const typename Api::CreateRequest& request, typename Api::CreateResponse& response) {
    CatalogueEntry entry = FromMessage(Api::Of(request));
    if (entry.english.empty()) entry.english = entry.german;
    std::vector<rpc::Violation> violations = CheckEntry(entry, Api::kField);
    entry.id = Api::IdOf(request).empty() ? "e" + RandomId() : Api::IdOf(request);
    if (!IsEntryId(entry.id)) violations.push_back({absl::StrCat(Api::kField, "_id"), BadId()});
    CheckRequestId(request.request_id(), violations);
    if (!violations.empty()) co_return rpc::InvalidFields(violations);
    std::string hash = "sha256:" + Hex(Sha256(Api::kField + request.SerializeAsString()));
    absl::StatusOr<CatalogueEntry> made = co_await store_.Create(std::move(entry), request.request_id(),
                                                                 std::move(hash), CommitOf(request.validate_only()));
    if (!made.ok()) co_return rpc::FromAbsl(made.status());
    *Api::Mutable(response) = ToMessage(*made);
    co_return grpc::Status::OK;
  }

  async::Task<grpc::Status> Get(const typename Api::GetRequest& request, typename Api::GetResponse& response) {
    const std::string id = IdOfName(request.name());
    if (id.empty()) co_return BadName("name");
    absl::StatusOr<CatalogueEntry> found = co_await store_.Get(id);
    if (!found.ok()) co_return rpc::FromAbsl(found.status());
    *Api::Mutable(response) = ToMessage(*found);
    co_return grpc::Status::OK;
  }

  async::Task<grpc::Status> List(const typename Api::ListRequest& request, typename Api::ListResponse& response) {
    std::vector<rpc::Violation> violations;
    const std::string arguments = absl::StrCat(Av(store_.catalogue().collection), "\n", request.text());
    absl::StatusOr<int> size = rpc::PageSize(request.page_size(), 50, 1000);
    absl::StatusOr<std::string> after = rpc::ReadPageToken(epoch_, arguments, request.page_token());
    if (!size.ok()) violations.push_back({"page_size", std::string(size.status().message())});
    if (!after.ok()) violations.push_back({"page_token", std::string(after.status().message())});
    CheckSearch(request.text(), violations);
    if (!violations.empty()) co_return rpc::InvalidFields(violations);
    absl::StatusOr<std::vector<CatalogueEntry>> found = co_await store_.List(request.text(), *after, *size + 1);
    if (!found.ok()) co_return rpc::FromAbsl(found.status());
    PageBudget budget;
    std::string last;
    for (const CatalogueEntry& entry : *found) {
      const Entry message = ToMessage(entry);
      if (Api::Entries(response).size() == *size || !budget.Take(message.ByteSizeLong())) {
        response.set_next_page_token(rpc::MakePageToken(epoch_, arguments, last));
        break;
      }
      *Api::Entries(response).Add() = message;
      last = NameKey(entry.german);
    }
    co_return grpc::Status::OK;
  }

  async::Task<grpc::Status> Update(const typename Api::UpdateRequest& request, typename Api::UpdateResponse& response) {
    const Entry& update = Api::Of(request);
    const std::string id = IdOfName(update.name());
    if (id.empty()) co_return BadName(absl::StrCat(Api::kField, ".name"));
    absl::StatusOr<CatalogueEntry> stored = co_await store_.Get(id);
    if (absl::IsNotFound(stored.status()) && request.allow_missing()) {
      typename Api::CreateRequest create;
      *Api::Mutable(create) = update;
      Api::SetId(create, id);
      create.set_validate_only(request.validate_only());
      typename Api::CreateResponse created;
      grpc::Status status = co_await Create(create, created);
      *Api::Mutable(response) = Api::Of(created);
      co_return status;
    }
    if (!stored.ok()) co_return rpc::FromAbsl(stored.status());
    Entry next = ToMessage(*stored);
    std::vector<rpc::Violation> violations = Merge(update, request.update_mask(), next);
    CatalogueEntry entry = FromMessage(next);
    entry.id = id;
    if (entry.english.empty()) entry.english = entry.german;
    for (rpc::Violation& v : CheckEntry(entry, Api::kField)) violations.push_back(std::move(v));
    if (!violations.empty()) co_return rpc::InvalidFields(violations);
    const std::string etag = update.etag().empty() ? stored->etag : update.etag();
    if (entry.color.empty()) entry.color = stored->color;
    absl::StatusOr<CatalogueEntry> updated =
        co_await store_.Update(std::move(entry), etag, CommitOf(request.validate_only()));
    if (!updated.ok()) co_return rpc::FromAbsl(updated.status());
    *Api::Mutable(response) = ToMessage(*updated);
    co_return grpc::Status::OK;
  }

  async::Task<grpc::Status> Delete(const typename Api::DeleteRequest& request) {
    const std::string id = IdOfName(request.name());
    std::vector<rpc::Violation> violations;
    if (id.empty()) violations.push_back({"name", NameRule()});
    const std::string replacement = IdOfName(request.replacement());
    if (!request.replacement().empty() && (replacement.empty() || replacement == id)) {
      violations.push_back({"replacement", NameRule() + ", and another than the one to be deleted"});
    }
    if (!violations.empty()) co_return rpc::InvalidFields(violations);
    co_return rpc::FromAbsl(co_await store_.Delete(id, request.etag(), replacement, CommitOf(request.validate_only())));
  }

 private:
  static Commit CommitOf(bool validate_only) { return validate_only ? Commit::kDryRun : Commit::kYes; }
  static std::string BadId() { return "must have 2 to 63 characters of a-z, 0-9 and hyphen and start with a letter"; }
  std::string NameRule() const {
    return absl::StrCat("must be ", Av(store_.catalogue().collection),
                        "/ and 2 to 63 characters of a-z, 0-9 and hyphen");
  }
  grpc::Status BadName(const std::string& field) const { return rpc::InvalidFields({{field, NameRule()}}); }

  // Empty if it is no name of this catalogue.
  std::string IdOfName(const std::string& name) const {
    const std::string prefix = absl::StrCat(Av(store_.catalogue().collection), "/");
    const std::string id = name.rfind(prefix, 0) == 0 ? name.substr(prefix.size()) : "";
    return IsEntryId(id) ? id : "";
  }

  static std::vector<rpc::Violation> Merge(const Entry& update, const google::protobuf::FieldMask& mask,
                                           Entry& stored) {
    using google::protobuf::util::FieldMaskUtil;
    std::vector<rpc::Violation> violations;
    const google::protobuf::FieldMask known = KnownPaths<Entry>(mask, "update_mask", violations);
    if (mask.paths_size() == 1 && mask.paths(0) == "*") {
      stored = update;
    } else if (mask.paths().empty()) {
      stored.MergeFrom(update);
    } else {
      FieldMaskUtil::MergeMessageTo(update, known, FieldMaskUtil::MergeOptions(), &stored);
    }
    return violations;
  }

  static CatalogueEntry FromMessage(const Entry& message) {
    CatalogueEntry out;
    out.german = message.german_name();
    out.english = message.english_name();
    out.color = absl::AsciiStrToLower(message.color());
    return out;
  }
  Entry ToMessage(const CatalogueEntry& entry) const {
    Entry out;
    out.set_name(absl::StrCat(Av(store_.catalogue().collection), "/", entry.id));
    out.set_german_name(entry.german);
    out.set_english_name(entry.english);
    out.set_color(entry.color);
    *out.mutable_create_time() = google::protobuf::util::TimeUtil::MicrosecondsToTimestamp(entry.create_time);
    *out.mutable_update_time() = google::protobuf::util::TimeUtil::MicrosecondsToTimestamp(entry.update_time);
    out.set_etag(entry.etag);
    return out;
  }

  CatalogueStore& store_;
  const std::string& epoch_;
};

}  // namespace poststelle::config
