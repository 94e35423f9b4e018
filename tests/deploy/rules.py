"""What every manifest has to keep, beyond its schema. Each rule is a function that yields what is wrong."""
import base64
import hashlib
import re

SHUTDOWN_GRACE = 5  # of the gRPC server (libs/rpc/server.cc)
RESERVE = 15
PARSER_BYTES = 1 << 30  # libs/parsing/parser_pool.h: of one child
OTHER_BYTES = 128 << 20
IDENTITY = re.compile(r"#.*|\S+ +(viewer|operator|admin|consumer|service) +(sha256:[0-9a-f]{64}|\S{20,})")
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def seconds(text):
    """A duration as --help prints it: 10s, 1m30s."""
    return sum(int(n) * {"h": 3600, "m": 60, "s": 1}[unit] for n, unit in re.findall(r"(\d+)([hms])", text))


def quantity(text):
    number, unit = re.fullmatch(r"([0-9.]+)(m|[KMGT]i|)", str(text)).groups()
    return float(number) * {"": 1, "m": 0.001, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}[unit]


class Program:
    """The options of a service, by its --help."""

    def __init__(self, help_text):
        self.defaults, self.environment = {}, set()
        for flag, default, env in re.findall(r"^ +(--[a-z-]+) [^\n=]*?(?:=(\S+) )?\(Env:(\w+)\)", help_text, re.M):
            self.defaults[flag] = default
            self.environment.add(env)


class World:
    """The documents of one rendering, and what the rules measure them by.

    programs: image name → Program; version: of the project; listed: {(secret, key)} that the README tells people to make.
    """

    def __init__(self, documents, programs, version, listed):
        self.documents, self.programs, self.version, self.listed = documents, programs, version, listed
        self.workloads = [d for d in documents if d["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job")]

    def of_kind(self, kind):
        return [d for d in self.documents if d["kind"] == kind]

    def containers(self):
        for workload in self.workloads:
            pod = workload["spec"]["template"]["spec"]
            for container in pod.get("initContainers", []) + pod["containers"]:
                yield workload, pod, container

    def program(self, container):
        return self.programs.get(image_name(container))

    def ours(self):
        for workload, pod, container in self.containers():
            if image_name(container).startswith("poststelle-"):
                yield workload, pod, container

    def selected(self, selector):
        return [w for w in self.workloads if selector and selector.items() <= labels(w).items()]

    def has_key(self, kind, name, key):
        for document in self.of_kind(kind):
            # The generator puts a hash behind the name and changes the reference with it.
            if document["metadata"]["name"] == name:
                return key is None or key in {**document.get("data", {}), **document.get("stringData", {})}
        return kind == "Secret" and any(s == name and key in (None, k) for s, k in self.listed)


def labels(workload):
    return workload["spec"]["template"]["metadata"].get("labels", {})


def name_of(document):
    return f"{document['kind']}/{document['metadata']['name']}"


def image_name(container):
    return container["image"].rsplit("/", 1)[-1].split(":")[0].split("@")[0]


def arguments(container):
    """--flag=value as a dict; the value of a flag given without one is None."""
    out = {}
    for argument in container.get("args", []):
        flag, equals, value = str(argument).partition("=")
        out[flag] = value if equals else None
    return out


def named_port(container, name):
    return next((p["containerPort"] for p in container.get("ports", []) if p.get("name") == name), None)


def probes(world):
    for workload, pod, container in world.containers():
        if container in pod.get("initContainers", []) or workload["kind"] == "Job":
            continue
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe not in container:
                yield f"{name_of(workload)} has no {probe}"
    for workload, _, container in world.ours():
        for probe, service in (("startupProbe", "liveness"), ("livenessProbe", "liveness"), ("readinessProbe", "")):
            grpc = container.get(probe, {}).get("grpc")
            if grpc is None or grpc.get("service", "") != service or grpc["port"] != named_port(container, "grpc"):
                yield f"{name_of(workload)}: {probe} has to ask the port named grpc for the service \"{service}\""


def resources(world):
    for workload, _, container in world.containers():
        given = container.get("resources", {})
        for side in ("requests", "limits"):
            for what in ("cpu", "memory"):
                if what not in given.get(side, {}):
                    yield f"{name_of(workload)}: {container['name']} has no {side}.{what}"
        if given.get("requests", {}).get("memory") != given.get("limits", {}).get("memory"):
            yield f"{name_of(workload)}: the memory that is requested is not the limit"


def parser_memory(world):
    for workload, _, container in world.ours():
        given, program = arguments(container), world.program(container)
        if program is None or "--parsers" not in program.defaults:
            continue
        value = {flag: int(given.get(flag) or program.defaults[flag]) for flag in ("--parsers", "--memory")}
        needed = value["--memory"] + value["--parsers"] * PARSER_BYTES + OTHER_BYTES
        limit = container.get("resources", {}).get("limits", {}).get("memory", "0")
        if quantity(limit) < needed:
            yield f"{name_of(workload)}: limit {limit} is less than --memory, the parsers and the rest: {needed >> 20}Mi"


def images(world):
    for workload, _, container in world.containers():
        image = container["image"]
        tag = image.rsplit("/", 1)[-1].partition("@")[0].partition(":")[2]
        if not re.search(r"\d", tag) or tag == "latest":
            yield f"{name_of(workload)}: {image} is not pinned to a version"
    for workload, _, container in world.ours():
        if image_name(container) not in world.programs:
            yield f"{name_of(workload)}: deploy/image builds no {container['image']}"
        elif not container["image"].endswith(":" + world.version):
            yield f"{name_of(workload)}: {container['image']} is not of this version, {world.version}"


def pod_security(world):
    for workload, pod, container in world.containers():
        of_pod, own, name = pod.get("securityContext", {}), container.get("securityContext", {}), name_of(workload)
        both = {**of_pod, **own}
        wrong = {
            "runAsNonRoot is not true": both.get("runAsNonRoot") is not True,
            "runAsUser is not given, or 0": not both.get("runAsUser"),
            "seccompProfile is not RuntimeDefault": both.get("seccompProfile", {}).get("type") != "RuntimeDefault",
            "allowPrivilegeEscalation is not false": own.get("allowPrivilegeEscalation") is not False,
            "privileged": own.get("privileged", False),
            "capabilities are not just drop: [ALL]": own.get("capabilities") != {"drop": ["ALL"]},
            "readOnlyRootFilesystem is not true": own.get("readOnlyRootFilesystem") is not True,
            "a namespace of the host": any(pod.get(k) for k in ("hostNetwork", "hostPID", "hostIPC")),
            "a port of the host": any("hostPort" in p for p in container.get("ports", [])),
            "sysctls": bool(of_pod.get("sysctls")),
        }
        for what, is_so in wrong.items():
            if is_so:
                yield f"{name}, {container['name']}: {what}"
    for workload, _, container in world.ours():
        if workload["spec"]["template"]["spec"].get("securityContext", {}).get("runAsUser") != 65532:
            yield f"{name_of(workload)}: our images run as 65532"
    for document in world.of_kind("Namespace"):
        if document["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"{name_of(document)} does not enforce the Pod Security level restricted"


def service_accounts(world):
    accounts = {d["metadata"]["name"]: d for d in world.of_kind("ServiceAccount")}
    for workload in world.workloads:
        pod = workload["spec"]["template"]["spec"]
        account = accounts.get(pod.get("serviceAccountName"))
        if account is None:
            yield f"{name_of(workload)} has no service account of its own"
        elif account.get("automountServiceAccountToken") is not False or pod.get("automountServiceAccountToken") is not False:
            yield f"{name_of(workload)} mounts a token for the Kubernetes API, which it does not use"
        if pod.get("enableServiceLinks") is not False:
            yield f"{name_of(workload)}: enableServiceLinks has to be false; its variables look like options of ours"


def volumes(world):
    for workload, pod, _ in world.containers():
        given = {v["name"]: v for v in pod.get("volumes", [])}
        mounted = {m["name"] for c in pod["containers"] + pod.get("initContainers", []) for m in c.get("volumeMounts", [])}
        if set(given) != mounted:
            yield f"{name_of(workload)}: volumes {sorted(given)}, mounted {sorted(mounted)}"
        for volume in given.values():
            kind = next(k for k in volume if k != "name")
            if kind not in VOLUMES:
                yield f"{name_of(workload)}: a volume of kind {kind}"
            if kind == "emptyDir" and "sizeLimit" not in (volume["emptyDir"] or {}):
                yield f"{name_of(workload)}: emptyDir {volume['name']} has no sizeLimit"
            # A file that others can read is refused by the services (libs/secrets).
            if kind == "secret" and volume["secret"].get("defaultMode") != 0o440:
                yield f"{name_of(workload)}: the mode of secret {volume['name']} is not 288 (0440)"


def grace(world):
    for workload, pod, container in world.ours():
        program = world.program(container)
        if program is None:
            continue  # images() says so
        value = {flag: seconds(arguments(container).get(flag) or default) for flag, default in program.defaults.items()
                 if flag in ("--drain-delay", "--drain-timeout", "--lease")}
        if value["--drain-delay"] < 1:
            yield f"{name_of(workload)}: no --drain-delay, clients still come when it no longer serves"
        # Work in hand ends within a lease, or is taken over.
        working = value.get("--lease", 0) + SHUTDOWN_GRACE
        if value["--drain-timeout"] < working:
            yield f"{name_of(workload)}: --drain-timeout {value['--drain-timeout']} cuts off work in hand, which may take {working}"
        needed = value["--drain-delay"] + value["--drain-timeout"] + RESERVE
        given = pod.get("terminationGracePeriodSeconds", 30)
        if given < needed:
            yield f"{name_of(workload)}: terminationGracePeriodSeconds {given} cuts off draining, which may take {needed}"


def rollout(world):
    for workload, _, _ in world.ours():
        update = workload["spec"].get("strategy", {}).get("rollingUpdate", {})
        if workload["kind"] == "Deployment" and (update.get("maxUnavailable") != 0 or not update.get("maxSurge")):
            yield f"{name_of(workload)}: an update takes a pod away before the new one is ready (maxUnavailable 0, maxSurge 1)"


def disruption(world):
    budgets = world.of_kind("PodDisruptionBudget")
    for budget in budgets:
        chosen = world.selected(budget["spec"]["selector"]["matchLabels"])
        if len(chosen) != 1:
            yield f"{name_of(budget)} selects {len(chosen)} workloads"
            continue
        replicas, spec = chosen[0]["spec"].get("replicas", 1), budget["spec"]
        if replicas < 2 or spec.get("maxUnavailable") == 0 or spec.get("minAvailable", 0) >= replicas:
            yield f"{name_of(budget)} can never be satisfied: it blocks the draining of nodes"
    for workload, _, _ in world.ours():
        covered = any(workload in world.selected(b["spec"]["selector"]["matchLabels"]) for b in budgets)
        if workload["spec"].get("replicas", 1) > 1 and not covered:
            yield f"{name_of(workload)} has replicas but no PodDisruptionBudget"


def selectors(world):
    for workload in world.workloads:
        chosen = workload["spec"].get("selector", {}).get("matchLabels", {})
        if workload["kind"] != "Job" and world.selected(chosen) != [workload]:
            yield f"{name_of(workload)}: its selector does not choose just its own pods"
        for spread in workload["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            if world.selected(spread["labelSelector"]["matchLabels"]) != [workload]:
                yield f"{name_of(workload)}: a topologySpreadConstraint does not choose just its own pods"
    for service in world.of_kind("Service"):
        chosen = world.selected(service["spec"].get("selector", {}))
        if len(chosen) != 1:
            yield f"{name_of(service)} selects {len(chosen)} workloads"
            continue
        container = chosen[0]["spec"]["template"]["spec"]["containers"][0]
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            if target not in [p.get(k) for p in container.get("ports", []) for k in ("name", "containerPort")]:
                yield f"{name_of(service)}: its pods have no port {target}"
            if port["name"] == "grpc" and service["spec"].get("clusterIP") != "None":
                yield f"{name_of(service)}: gRPC needs a headless service, or all calls of a client go to one pod"


def spread(world):
    for workload, pod, _ in world.ours():
        keys = {s["topologyKey"] for s in pod.get("topologySpreadConstraints", [])}
        if not {"topology.kubernetes.io/zone", "kubernetes.io/hostname"} <= keys:
            yield f"{name_of(workload)} is not spread over zones and nodes"


def ports(world):
    for workload, _, container in world.ours():
        given = arguments(container)
        for flag, name in (("--listen", "grpc"), ("--metrics-address", "metrics")):
            if given.get(flag) != f"0.0.0.0:{named_port(container, name)}":
                yield f"{name_of(workload)}: {flag} is not 0.0.0.0 and the port named {name}"
        for value in given.values():
            # Addresses of other services: a Service of this rendering that has that port.
            if match := re.fullmatch(r"dns:///([a-z0-9-]+):(\d+)", value or ""):
                host, port = match.groups()
                if not any(s["metadata"]["name"] == host and int(port) in [p["port"] for p in s["spec"]["ports"]]
                           for s in world.of_kind("Service")):
                    yield f"{name_of(workload)}: there is no service {host} with port {port}"


def options(world):
    for workload, _, container in world.ours():
        program = world.program(container)
        if program is None:
            continue  # images() says so
        for flag in arguments(container):
            if flag not in program.defaults:
                yield f"{name_of(workload)}: {image_name(container)} has no option {flag}"
        for variable in container.get("env", []):
            if variable["name"].startswith("POSTSTELLE_") and variable["name"] not in program.environment:
                yield f"{name_of(workload)}: {image_name(container)} has no option {variable['name']}"


def references(world):
    for workload, pod, container in world.containers():
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                if field in source and not world.has_key(kind, source[field]["name"], source[field]["key"]):
                    yield f"{name_of(workload)}: no {kind} {source[field]['name']} with {source[field]['key']}, here or in the README"
        for source in container.get("envFrom", []):
            yield f"{name_of(workload)}: envFrom takes variables nobody has read: {source}"
        for volume in pod.get("volumes", []):
            for field, key, kind in (("secret", "secretName", "Secret"), ("configMap", "name", "ConfigMap")):
                if field in volume and not world.has_key(kind, volume[field][key], None):
                    yield f"{name_of(workload)}: no {kind} {volume[field][key]}, here or in the README"
    for workload, pod, container in world.ours():
        # Files that options name: in a secret that is mounted there.
        secrets = {v["name"]: v["secret"]["secretName"] for v in pod.get("volumes", []) if "secret" in v}
        mounts = {m["mountPath"]: secrets.get(m["name"]) for m in container.get("volumeMounts", [])}
        for flag, value in arguments(container).items():
            if not (value or "").startswith("/"):
                continue
            folder, _, file = value.rpartition("/")
            if not mounts.get(folder) or not world.has_key("Secret", mounts[folder], file):
                yield f"{name_of(workload)}: {flag} is a file that no mounted secret holds"


def secrets(world):
    for document in world.of_kind("Secret"):
        for key, value in document.get("data", {}).items():
            text = base64.b64decode(value).decode()
            if key.endswith(".key") and not re.fullmatch(r"(key \S+ [0-9a-f]{64}\n?)+", text):
                yield f"{name_of(document)}: {key} is no key file"
            if key.endswith(".token") and len(text.strip()) < 20:
                yield f"{name_of(document)}: {key} is no token"
            if key == "identities" and not all(IDENTITY.fullmatch(line) for line in text.splitlines()):
                yield f"{name_of(document)}: {key} is no file of identities"
    # A service that shows a token nobody knows is refused by the others.
    texts = [(key, base64.b64decode(value).decode()) for d in world.of_kind("Secret") for key, value in d.get("data", {}).items()]
    known = "".join(text for key, text in texts if key == "identities")
    for key, text in texts:
        if key.endswith(".token") and f"sha256:{hashlib.sha256(text.strip().encode()).hexdigest()}" not in known:
            yield f"{key} is of no identity"


def unique(world):
    seen = set()
    for document in world.documents:
        key = (document["kind"], document["metadata"].get("namespace"), document["metadata"]["name"])
        if key in seen:
            yield f"{name_of(document)} is there twice"
        seen.add(key)


RULES = [probes, resources, parser_memory, images, pod_security, service_accounts, volumes, grace, rollout, disruption, selectors,
         spread, ports, options, references, secrets, unique]


def broken(world):
    """{rule: what is wrong}, of the rules that are not kept."""
    found = {rule.__name__: list(dict.fromkeys(rule(world))) for rule in RULES}
    return {name: wrong for name, wrong in found.items() if wrong}
