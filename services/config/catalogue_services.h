// TicketStatusService and LabelService over gRPC.
#pragma once

#include <string>

#include "libs/rpc/gate.h"
#include "libs/rpc/unary.h"
#include "poststelle/config/v1/label_service.grpc.pb.h"
#include "poststelle/config/v1/ticket_status_service.grpc.pb.h"
#include "services/config/catalogue_handlers.h"

namespace poststelle::config {

struct TicketStatusApi {
  using Entry = v1::TicketStatus;
  using CreateRequest = v1::CreateTicketStatusRequest;
  using CreateResponse = v1::CreateTicketStatusResponse;
  using GetRequest = v1::GetTicketStatusRequest;
  using GetResponse = v1::GetTicketStatusResponse;
  using ListRequest = v1::ListTicketStatusesRequest;
  using ListResponse = v1::ListTicketStatusesResponse;
  using UpdateRequest = v1::UpdateTicketStatusRequest;
  using UpdateResponse = v1::UpdateTicketStatusResponse;
  using DeleteRequest = v1::DeleteTicketStatusRequest;
  static constexpr const char* kField = "ticket_status";
  static const Entry& Of(const auto& message) { return message.ticket_status(); }
  static Entry* Mutable(auto& message) { return message.mutable_ticket_status(); }
  static const std::string& IdOf(const CreateRequest& request) { return request.ticket_status_id(); }
  static void SetId(CreateRequest& request, const std::string& id) { request.set_ticket_status_id(id); }
  static auto& Entries(ListResponse& response) { return *response.mutable_ticket_statuses(); }
};

// TicketStatusService over gRPC. `epoch` is read by calls only.
class TicketStatusService : public v1::TicketStatusService::CallbackService {
 public:
  TicketStatusService(const rpc::Gate& gate, CatalogueStore& store, const std::string& epoch)
      : gate_(gate), handlers_(store, epoch) {}
  grpc::ServerUnaryReactor* CreateTicketStatus(grpc::CallbackServerContext* context,
                                               const v1::CreateTicketStatusRequest* request,
                                               v1::CreateTicketStatusResponse* response) override {
    return rpc::Unary(context, gate_, *request, handlers_.Create(*request, *response));
  }
  grpc::ServerUnaryReactor* GetTicketStatus(grpc::CallbackServerContext* context,
                                            const v1::GetTicketStatusRequest* request,
                                            v1::GetTicketStatusResponse* response) override {
    return rpc::Unary(context, gate_, *request, handlers_.Get(*request, *response));
  }
  grpc::ServerUnaryReactor* ListTicketStatuses(grpc::CallbackServerContext* context,
                                               const v1::ListTicketStatusesRequest* request,
                                               v1::ListTicketStatusesResponse* response) override {
    return rpc::Unary(context, gate_, *request, handlers_.List(*request, *response));
  }
  grpc::ServerUnaryReactor* UpdateTicketStatus(grpc::CallbackServerContext* context,
                                               const v1::UpdateTicketStatusRequest* request,
                                               v1::UpdateTicketStatusResponse* response) override {
    return rpc::Unary(context, gate_, *request, handlers_.Update(*request, *response));
  }
  grpc::ServerUnaryReactor* DeleteTicketStatus(grpc::CallbackServerContext* context,
                                               const v1::DeleteTicketStatusRequest* request,
                                               google::protobuf::Empty*) override {
    return rpc::Unary(context, gate_, *request, handlers_.Delete(*request));
  }

 private:
  const rpc::Gate& gate_;
  CatalogueHandlers<TicketStatusApi> handlers_;
};

struct LabelApi {
  using Entry = v1::Label;
  using CreateRequest = v1::CreateLabelRequest;
  using CreateResponse = v1::CreateLabelResponse;
  using GetRequest = v1::GetLabelRequest;
  using GetResponse = v1::GetLabelResponse;
  using ListRequest = v1::ListLabelsRequest;
  using ListResponse = v1::ListLabelsResponse;
  using UpdateRequest = v1::UpdateLabelRequest;
  using UpdateResponse = v1::UpdateLabelResponse;
  using DeleteRequest = v1::DeleteLabelRequest;
  static constexpr const char* kField = "label";
  static const Entry& Of(const auto& message) { return message.label(); }
  static Entry* Mutable(auto& message) { return message.mutable_label(); }
  static const std::string& IdOf(const CreateRequest& request) { return request.label_id(); }
  static void SetId(CreateRequest& request, const std::string& id) { request.set_label_id(id); }
  static auto& Entries(ListResponse& response) { return *response.mutable_labels(); }
};

// LabelService over gRPC. `epoch` is read by calls only.
class LabelService : public v1::LabelService::CallbackService {
 public:
  LabelService(const rpc::Gate& gate, CatalogueStore& store, const std::string& epoch)
      : gate_(gate), handlers_(store, epoch) {}
  grpc::ServerUnaryReactor* CreateLabel(grpc::CallbackServerContext* context, const v1::CreateLabelRequest* request,
                                        v1::CreateLabelResponse* response) override {
    return rpc::Unary(context, gate_, *request, handlers_.Create(*request, *response));
  }
  grpc::ServerUnaryReactor* GetLabel(grpc::CallbackServerContext* context, const v1::GetLabelRequest* request,
                                     v1::GetLabelResponse* response) override {
    return rpc::Unary(context, gate_, *request, handlers_.Get(*request, *response));
  }
  grpc::ServerUnaryReactor* ListLabels(grpc::CallbackServerContext* context, const v1::ListLabelsRequest* request,
                                       v1::ListLabelsResponse* response) override {
    return rpc::Unary(context, gate_, *request, handlers_.List(*request, *response));
  }
  grpc::ServerUnaryReactor* UpdateLabel(grpc::CallbackServerContext* context, const v1::UpdateLabelRequest* request,
                                        v1::UpdateLabelResponse* response) override {
    return rpc::Unary(context, gate_, *request, handlers_.Update(*request, *response));
  }
  grpc::ServerUnaryReactor* DeleteLabel(grpc::CallbackServerContext* context, const v1::DeleteLabelRequest* request,
                                        google::protobuf::Empty*) override {
    return rpc::Unary(context, gate_, *request, handlers_.Delete(*request));
  }

 private:
  const rpc::Gate& gate_;
  CatalogueHandlers<LabelApi> handlers_;
};

}  // namespace poststelle::config
