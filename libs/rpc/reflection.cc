#include "libs/rpc/reflection.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>
#include <grpcpp/impl/server_initializer.h>

#include <set>

#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "libs/rpc/bidi.h"

namespace poststelle::rpc {
namespace {

namespace api = grpc::reflection::v1alpha;
using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptor;
using Stream = Bidi<api::ServerReflectionRequest, api::ServerReflectionResponse>;

// The file after those that it needs, each once.
void AddFile(const FileDescriptor& file, std::set<const FileDescriptor*>& seen, api::FileDescriptorResponse& out) {
  if (!seen.insert(&file).second) return;
  for (int i = 0; i < file.dependency_count(); ++i) AddFile(*file.dependency(i), seen, out);
  google::protobuf::FileDescriptorProto proto;
  file.CopyTo(&proto);
  out.add_file_descriptor_proto(proto.SerializeAsString());
}

const FileDescriptor* FindExtension(const DescriptorPool& pool, const api::ExtensionRequest& request) {
  const auto* type = pool.FindMessageTypeByName(request.containing_type());
  if (type == nullptr) return nullptr;
  const auto* extension = pool.FindExtensionByNumber(type, request.extension_number());
  return extension == nullptr ? nullptr : extension->file();
}

// False if there is no such type.
bool ListExtensions(const DescriptorPool& pool, const std::string& name, api::ExtensionNumberResponse& out) {
  const auto* type = pool.FindMessageTypeByName(name);
  if (type == nullptr) return false;
  out.set_base_type_name(name);
  std::vector<const google::protobuf::FieldDescriptor*> extensions;
  pool.FindAllExtensions(type, &extensions);
  for (const auto* extension : extensions) out.add_extension_number(extension->number());
  return true;
}

api::ServerReflectionResponse Answer(const api::ServerReflectionRequest& request,
                                     const std::vector<std::string>& services) {
  using Request = api::ServerReflectionRequest;
  const DescriptorPool& pool = *DescriptorPool::generated_pool();
  api::ServerReflectionResponse response;
  response.set_valid_host(request.host());
  *response.mutable_original_request() = request;
  const FileDescriptor* file = nullptr;
  switch (request.message_request_case()) {
    case Request::kListServices:
      for (const std::string& name : services) response.mutable_list_services_response()->add_service()->set_name(name);
      return response;
    case Request::kFileByFilename:
      file = pool.FindFileByName(request.file_by_filename());
      break;
    case Request::kFileContainingSymbol:
      file = pool.FindFileContainingSymbol(request.file_containing_symbol());
      break;
    case Request::kFileContainingExtension:
      file = FindExtension(pool, request.file_containing_extension());
      break;
    case Request::kAllExtensionNumbersOfType:
      if (ListExtensions(pool, request.all_extension_numbers_of_type(),
                         *response.mutable_all_extension_numbers_response())) {
        return response;
      }
      break;
    case Request::MESSAGE_REQUEST_NOT_SET:
      response.mutable_error_response()->set_error_code(grpc::StatusCode::INVALID_ARGUMENT);
      response.mutable_error_response()->set_error_message("nothing was asked for");
      return response;
  }
  if (file == nullptr) {
    response.mutable_error_response()->set_error_code(grpc::StatusCode::NOT_FOUND);
    response.mutable_error_response()->set_error_message("there is nothing of that name");
    return response;
  }
  std::set<const FileDescriptor*> seen;
  AddFile(*file, seen, *response.mutable_file_descriptor_response());
  return response;
}

async::Task<grpc::Status> Serve(std::shared_ptr<Stream> stream, const std::vector<std::string>& services) {
  while (true) {
    const std::optional<api::ServerReflectionRequest> request = co_await stream->Read();
    if (!request) co_return grpc::Status::OK;
    const api::ServerReflectionResponse response = Answer(*request, services);
    const bool sent = co_await stream->Write(response);
    if (!sent) co_return grpc::Status::CANCELLED;
  }
}

// Asks the server, before it starts, which services it has.
class NamesPlugin : public grpc::ServerBuilderPlugin {
 public:
  explicit NamesPlugin(std::vector<std::string>& names) : names_(names) {}
  std::string name() override { return "service names"; }
  void InitServer(grpc::ServerInitializer*) override {}
  void Finish(grpc::ServerInitializer* initializer) override { names_ = *initializer->GetServiceList(); }
  void ChangeArguments(const std::string&, void*) override {}

 private:
  std::vector<std::string>& names_;
};

class NamesOption : public grpc::ServerBuilderOption {
 public:
  explicit NamesOption(std::vector<std::string>& names) : names_(names) {}
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    plugins->push_back(std::make_unique<NamesPlugin>(names_));
  }

 private:
  std::vector<std::string>& names_;
};

}  // namespace

class Reflection::Service : public api::ServerReflection::CallbackService {
 public:
  explicit Service(const Gate& gate) : calls(gate.executor()), gate_(gate) {}
  grpc::ServerBidiReactor<api::ServerReflectionRequest, api::ServerReflectionResponse>* ServerReflectionInfo(
      grpc::CallbackServerContext* context) override {
    auto stream = std::make_shared<Stream>(gate_.executor());
    return Stream::Run(stream, calls, context, gate_, Serve(stream, names));
  }

  std::vector<std::string> names;  // of all services; written before the server starts
  async::TaskScope calls;

 private:
  const Gate& gate_;
};

Reflection::Reflection(const Gate& gate) : service_(std::make_unique<Service>(gate)) {}
Reflection::~Reflection() = default;

void Reflection::AddTo(grpc::ServerBuilder& builder) {
  builder.SetOption(std::make_unique<NamesOption>(service_->names));
  builder.RegisterService(service_.get());
}

void Reflection::Join() { service_->calls.JoinBlocking(); }

}  // namespace poststelle::rpc
