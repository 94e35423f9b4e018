"""Every method of every service, and the roles that its proto names (poststelle.auth.v1.allow)."""
import glob
import importlib
import os
from collections import namedtuple

from stack import BUILD, ROLES

from google.protobuf import descriptor_pb2  # after stack, which knows where the generated protos are
from poststelle.auth.v1 import access_pb2

# Whose role includes which.
INCLUDES = {"operator": {"viewer"}, "admin": {"viewer", "operator"}}

Method = namedtuple("Method", "package service name input client_streaming server_streaming named served")


def path(method):
    return f"/{method.package}.{method.service}/{method.name}"


def methods():
    """All of them, in the order of files and protos; `named`: the roles of the proto, `served`: with those that include them."""
    out = []
    folder = os.path.join(BUILD, "gen_python")
    for source in sorted(glob.glob(os.path.join(folder, "poststelle", "**", "*_pb2.py"), recursive=True)):
        module = importlib.import_module(os.path.relpath(source, folder)[:-3].replace(os.sep, "."))
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for service in file.service:
            for method in service.method:
                named = [access_pb2.Role.Name(role).removeprefix("ROLE_").lower() for role in method.options.Extensions[access_pb2.allow]]
                served = [role for role in ROLES if {role, *INCLUDES.get(role, ())} & set(named)]
                out.append(Method(file.package, service.name, method.name, method.input_type[1:], method.client_streaming, method.server_streaming, named,
                                  served))
    return out
