"""Every manifest: its schema, fields that don't exist, and the rules; and that each of these notices what is wrong."""
import base64
import copy
import glob
import json
import os
import re
import subprocess

import pytest

import rules
from conftest import COUNTS
from manifests import K8S, render, schemas
from stack import ROOT, binary

KUSTOMIZATIONS = sorted(os.path.dirname(p) for p in glob.glob(K8S + "/base/kustomization.yaml") +
                        glob.glob(K8S + "/overlays/*/kustomization.yaml"))


def short(folder):
    return os.path.relpath(folder, K8S)


def read(path):
    with open(path) as f:
        return f.read()


@pytest.fixture(scope="session")
def programs():
    names = [line.split()[0] for line in read(os.path.join(ROOT, "deploy", "image", "services.txt")).splitlines()
             if line and not line.startswith("#")]
    return {f"poststelle-{name}": rules.Program(subprocess.run([binary(f"poststelle-{name}"), "--help"], check=True,
                                                               capture_output=True, text=True).stdout) for name in names}


@pytest.fixture(scope="session")
def world(programs):
    version = re.search(r"project\(poststelle VERSION (\S+)", read(os.path.join(ROOT, "CMakeLists.txt"))).group(1)
    listed = set(re.findall(r"^\| `([a-z-]+)` \| `([a-z.]+)` \|", read(os.path.join(K8S, "README.md")), re.M))
    return lambda documents: rules.World(documents, programs, version, listed)


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """{folder: YAML file}"""
    out = {}
    for folder in KUSTOMIZATIONS:
        out[folder] = str(tmp_path_factory.mktemp("rendered") / "all.yaml")
        with open(out[folder], "w") as f:
            f.write(render(folder))
    return out


@pytest.fixture(scope="session")
def checked(rendered):
    documents, errors = schemas(*rendered.values())
    return {folder: documents[file] for folder, file in rendered.items()}, errors


def test_base_and_demo_are_among_the_kustomizations():
    assert {"base", "overlays/demo"} <= {short(f) for f in KUSTOMIZATIONS}


def test_every_manifest_fits_its_schema_and_has_no_unknown_field(checked):
    documents, errors = checked
    assert errors == []
    COUNTS["valid"] = sum(len(d) for d in documents.values())
    assert COUNTS["valid"] > 20


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=short)
def test_every_rule_is_kept(folder, checked, world):
    assert rules.broken(world(checked[0][folder])) == {}


def test_the_base_makes_no_secret(checked):
    assert not [d for d in checked[0][os.path.join(K8S, "base")] if d["kind"] == "Secret"]


def test_the_demo_needs_nothing_that_it_does_not_make(checked, world):
    alone = world(checked[0][os.path.join(K8S, "overlays", "demo")])
    alone.listed = set()
    assert rules.broken(alone) == {}


def test_each_secret_of_the_readme_is_referenced(checked, world):
    base = checked[0][os.path.join(K8S, "base")]
    for name, key in world(base).listed:
        assert name in json.dumps(base) and key in json.dumps(base), f"nothing uses {name}, {key}"


def find(documents, kind, name):
    return next(d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name)


def pod(documents, name="poststelle-fetcher"):
    return find(documents, "Deployment", name)["spec"]["template"]["spec"]


def container(documents, name="poststelle-fetcher"):
    return pod(documents, name)["containers"][0]


def replace_argument(documents, old, new):
    arguments = container(documents)["args"]
    assert any(a.startswith(old) for a in arguments)
    container(documents)["args"] = [new if a.startswith(old) else a for a in arguments]


def identities(documents):
    return next(s for s in documents if s["kind"] == "Secret" and "identities" in s["data"])["data"]


# (a word of the complaint, what is done to the demo's documents)
SCHEMA_MISTAKES = [
    ("resorces", lambda d: container(d).update(resorces=container(d).pop("resources"))),
    ("replicas", lambda d: find(d, "Deployment", "poststelle-fetcher")["spec"].update(replicas="2")),
    ("maxSkew", lambda d: pod(d)["topologySpreadConstraints"][0].pop("maxSkew")),
    ("failureTreshold", lambda d: container(d)["startupProbe"].update(failureTreshold=3)),
    ("Deploymint", lambda d: find(d, "Deployment", "poststelle-fetcher").update(kind="Deploymint")),
]


@pytest.mark.parametrize("word,mistake", SCHEMA_MISTAKES, ids=[word for word, _ in SCHEMA_MISTAKES])
def test_a_broken_schema_is_noticed(word, mistake, checked, tmp_path):
    documents = copy.deepcopy(checked[0][os.path.join(K8S, "overlays", "demo")])
    mistake(documents)
    broken = tmp_path / "broken.yaml"
    broken.write_text("\n---\n".join(json.dumps(d) for d in documents))
    _, errors = schemas(str(broken))
    assert any(word in error for error in errors), errors


# (the rule that has to notice it, what is done to the demo's documents)
MISTAKES = [
    ("probes", lambda d: container(d).pop("livenessProbe")),
    ("probes", lambda d: container(d)["readinessProbe"]["grpc"].update(service="liveness")),
    ("probes", lambda d: container(d)["livenessProbe"]["grpc"].update(port=7071)),
    ("resources", lambda d: container(d)["resources"]["limits"].pop("memory")),
    ("resources", lambda d: container(d)["resources"]["requests"].update(memory="64Mi")),
    ("parser_memory", lambda d: replace_argument(d, "--parsers", "--parsers=2")),
    ("images", lambda d: container(d, "poststelle-redis").update(image="redis:latest")),
    ("images", lambda d: container(d, "poststelle-redis").update(image="redis")),
    ("images", lambda d: container(d).update(image="poststelle-fetcher:0.0.9")),
    ("images", lambda d: container(d).update(image="poststelle-fetcherr:0.1.0")),
    ("pod_security", lambda d: pod(d)["securityContext"].pop("runAsNonRoot")),
    ("pod_security", lambda d: pod(d)["securityContext"].pop("seccompProfile")),
    ("pod_security", lambda d: pod(d).update(hostNetwork=True)),
    ("pod_security", lambda d: container(d)["securityContext"].update(privileged=True)),
    ("pod_security", lambda d: container(d)["securityContext"].pop("allowPrivilegeEscalation")),
    ("pod_security", lambda d: container(d)["securityContext"]["capabilities"].update(add=["NET_ADMIN"])),
    ("pod_security", lambda d: container(d)["securityContext"].update(readOnlyRootFilesystem=False)),
    ("pod_security", lambda d: find(d, "Namespace", "poststelle-demo")["metadata"].pop("labels")),
    ("service_accounts", lambda d: pod(d).pop("automountServiceAccountToken")),
    ("service_accounts", lambda d: pod(d).update(serviceAccountName="default")),
    ("service_accounts", lambda d: pod(d).pop("enableServiceLinks")),
    ("volumes", lambda d: pod(d, "poststelle-postgresql")["volumes"][0].update(emptyDir={})),
    ("volumes", lambda d: container(d)["volumeMounts"].pop()),
    ("volumes", lambda d: pod(d)["volumes"][0]["secret"].update(defaultMode=0o644)),
    ("grace", lambda d: pod(d).update(terminationGracePeriodSeconds=30)),
    ("grace", lambda d: container(d)["args"].append("--lease=1m")),
    ("grace", lambda d: container(d)["args"].append("--drain-timeout=1m")),
    ("grace", lambda d: replace_argument(d, "--drain-delay", "--drain-delay=0s")),
    ("rollout", lambda d: find(d, "Deployment", "poststelle-config")["spec"]["strategy"]["rollingUpdate"].update(maxUnavailable=1)),
    ("disruption", lambda d: find(d, "Deployment", "poststelle-fetcher")["spec"].update(replicas=1)),
    ("disruption", lambda d: find(d, "PodDisruptionBudget", "poststelle-fetcher")["spec"].update(maxUnavailable=0)),
    ("disruption", lambda d: d.remove(find(d, "PodDisruptionBudget", "poststelle-fetcher"))),
    ("selectors", lambda d: find(d, "Service", "poststelle-config")["spec"]["selector"].update({"app.kubernetes.io/name": "config"})),
    ("selectors", lambda d: find(d, "Service", "poststelle-config")["spec"]["ports"][0].update(targetPort="rpc")),
    ("selectors", lambda d: find(d, "Service", "poststelle-config")["spec"].pop("clusterIP")),
    ("spread", lambda d: pod(d)["topologySpreadConstraints"].pop()),
    ("ports", lambda d: replace_argument(d, "--listen", "--listen=127.0.0.1:7072")),
    ("ports", lambda d: replace_argument(d, "--config-address", "--config-address=dns:///poststelle-config:7072")),
    ("options", lambda d: container(d)["args"].append("--max-session=5")),
    ("options", lambda d: container(d)["env"].append({"name": "POSTSTELLE_FETCHER_REDIS_URL", "value": "x"})),
    ("references", lambda d: container(d)["env"][0]["valueFrom"]["secretKeyRef"].update(key="uri")),
    ("references", lambda d: pod(d)["volumes"][0]["secret"].update(secretName="poststelle-token")),
    ("references", lambda d: replace_argument(d, "--config-token-file", "--config-token-file=/etc/poststelle/token/token")),
    ("references", lambda d: pod(d, "poststelle-postgresql")["volumes"][-1]["configMap"].update(name="init")),
    ("secrets", lambda d: next(s for s in d if s["kind"] == "Secret" and "config.key" in s["data"])["data"].update({"config.key": "a2V5IGE="})),
    ("secrets", lambda d: identities(d).update(identities="YSB2aWV3ZXI=")),
    ("secrets", lambda d: identities(d).update(identities=base64.b64encode(b"# nobody").decode())),
    ("unique", lambda d: d.append(find(d, "Service", "poststelle-config"))),
]


@pytest.mark.parametrize("rule,mistake", MISTAKES, ids=[f"{rule}{i}" for i, (rule, _) in enumerate(MISTAKES)])
def test_a_broken_rule_is_noticed(rule, mistake, checked, world):
    documents = copy.deepcopy(checked[0][os.path.join(K8S, "overlays", "demo")])
    mistake(documents)
    assert rule in rules.broken(world(documents))


def test_every_rule_has_a_manifest_that_breaks_it():
    assert {rule for rule, _ in MISTAKES} == {rule.__name__ for rule in rules.RULES}
