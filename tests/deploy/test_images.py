"""The images: what is in them, and that they work with the arguments of the manifests, as Kubernetes would run them: as user
65532 and process 1, on a root that can't be written, with secrets mounted as Kubernetes mounts them.
"""
import hashlib
import json
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile

import pytest

from conftest import COUNTS
from manifests import K8S, render, schemas
from samples import mail
from servers import Authority, Dovecot, Postgres, Redis, free_port, wait_until
from stack import ACCOUNTS, BUILD, LOOPBACK, ROOT, Feed, Service, Stack

UID = 65532
STATE = "/var/lib/poststelle"
PROGRAMS = {"config": {"poststelle-config"}, "fetcher": {"poststelle-fetcher", "poststelle-parser"}, "sender": {"poststelle-sender"}}
TOKEN = "a-token-of-the-tests-and-nothing-else"
SECRETS = {"config.key": "key test " + "5a" * 32 + "\n", "fetcher.token": TOKEN + "\n", "config.token": TOKEN + "\n",
           "identities": f"fetcher service sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}\n"}
TEXTS = {"shift_jis": "請求書を送ってください", "iso-2022-jp": "請求書", "euc-kr": "송장을 보내 주세요", "gb18030": "请发送发票",
         "big5": "請寄發票", "koi8-r": "Пришлите счёт", "windows-1251": "Пришлите счёт", "iso-8859-15": "Rechnung über 5 €"}


class Image:
    """An OCI archive, unpacked."""

    def __init__(self, path, root):
        self.root = root
        with tarfile.open(path) as archive:
            def blob(descriptor):
                data = archive.extractfile("blobs/" + descriptor["digest"].replace(":", "/")).read()
                assert "sha256:" + hashlib.sha256(data).hexdigest() == descriptor["digest"]
                assert len(data) == descriptor["size"]
                return data

            index = json.load(archive.extractfile("index.json"))
            manifest = json.loads(blob(index["manifests"][0]))
            self.config = json.loads(blob(manifest["config"]))["config"]
            for layer in manifest["layers"]:
                layer_file = root + ".layer"
                with open(layer_file, "wb") as f:
                    f.write(blob(layer))
                with tarfile.open(layer_file) as tree:
                    self.members = tree.getmembers()
                    tree.extractall(root)
                os.remove(layer_file)


class ServiceInImage(Service):
    """A service in a sandbox whose root is its image; `container` is its container in the rendered manifests.

    `changes` replaces arguments of the manifest, `files` are its mounted secrets as {folder: {name: content}}.
    """

    def __init__(self, name, image, container, folder, changes, env, files):
        super().__init__(name, container["image"], folder, [])
        self.image = image
        self.state = os.path.join(folder, name)
        os.makedirs(self.state)
        given = dict(argument.split("=", 1) for argument in container["args"])
        given.update({"--listen": "127.0.0.1:0", "--metrics-address": "127.0.0.1:0", "--port-file": f"{STATE}/{name}.port"}, **changes)
        self.arguments = [f"{flag}={value}" for flag, value in given.items()]
        self.settings = {v["name"]: env[v["name"]] for v in container.get("env", [])}
        self.mounts = {target: mount_secret(os.path.join(folder, f"{name}-{i}"), content)
                       for i, (target, content) in enumerate(files.items())}
        assert set(self.mounts) == {m["mountPath"] for m in container["volumeMounts"]}
        if os.geteuid() == 0:
            os.chown(self.state, UID, UID)

    def argv(self, port_file):
        if os.path.lexists(port_file):
            os.remove(port_file)
        os.symlink(os.path.join(self.state, f"{self.name}.port"), port_file)
        # Root becomes the user first, so that root's files are another's in the sandbox too.
        become = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"] if os.geteuid() == 0 else []
        sandbox = ["bwrap", "--die-with-parent", "--unshare-user", "--uid", str(UID), "--gid", str(UID), "--unshare-pid", "--as-pid-1",
                   "--unshare-ipc", "--clearenv", "--ro-bind", self.image.root, "/", "--proc", "/proc", "--dev", "/dev",
                   "--bind", self.state, STATE, "--tmpfs", "/etc/poststelle",
                   "--ro-bind", "/etc/hosts", "/etc/hosts", "--ro-bind", "/etc/resolv.conf", "/etc/resolv.conf"]
        for target, source in self.mounts.items():
            sandbox += ["--ro-bind", source, target]
        for name, value in self.settings.items():
            sandbox += ["--setenv", name, value]
        return [*become, *sandbox, "--remount-ro", "/etc/poststelle", *self.image.config["Entrypoint"], *self.arguments]

    def terminate(self):
        """SIGTERM to the service itself, as a kubelet sends it; returns its exit code."""
        with open(f"/proc/{self.process.child.pid}/task/{self.process.child.pid}/children") as children:
            os.kill(int(children.read().split()[0]), 15)
        return self.process.child.wait(60)


def mount_secret(folder, content):
    """A folder as Kubernetes makes it: links over ..data, root's files, readable by the pod's group."""
    os.makedirs(os.path.join(folder, "..version"))
    os.symlink("..version", os.path.join(folder, "..data"))
    for name, text in content.items():
        path = os.path.join(folder, "..version", name)
        with open(path, "w") as f:
            f.write(text)
        os.symlink(os.path.join("..data", name), os.path.join(folder, name))
        os.chmod(path, 0o440 if os.geteuid() == 0 else 0o400)
        if os.geteuid() == 0:
            os.chown(path, 0, UID)
    return folder


class StackInImages(Stack):
    """The calls of Stack, on services that run in their images with the arguments of the base."""

    def __init__(self, folder, images, containers, database):
        self.accounts, self.others = ACCOUNTS, []
        self.own_folder, self.folder = False, os.path.join(folder, database)
        folder = self.folder
        os.makedirs(folder)
        self.redis = Redis(folder)
        self.postgres = Postgres(folder) if database == "postgres" else None
        urls = {name: self.postgres.create_database(name) if self.postgres else f"sqlite:{STATE}/{name}.db"
                for name in ("config", "fetcher")}
        self.mail_folder = tempfile.mkdtemp(prefix="poststelle-mail-")
        self.authority = Authority(self.mail_folder)
        self.dovecot = Dovecot(self.mail_folder, self.authority, ACCOUNTS)
        token = {"/etc/poststelle/token": {"fetcher.token": SECRETS["fetcher.token"]}}
        identities = {"/etc/poststelle/identities": {"identities": SECRETS["identities"]}}
        tests = {"--allow-unauthenticated-loopback": "true"}
        sender_port = free_port()  # config names it
        self.sender = ServiceInImage("sender", images["sender"], containers["sender"], folder,
                                     {"--listen": f"127.0.0.1:{sender_port}", "--egress-allow": LOOPBACK}, {}, identities)
        self.config = ServiceInImage("config", images["config"], containers["config"], folder,
                                     {"--min-fetch-interval": "100ms", "--sender-address": f"127.0.0.1:{sender_port}", **tests},
                                     {"POSTSTELLE_CONFIG_DATABASE": urls["config"]},
                                     {"/etc/poststelle/keys": {"config.key": SECRETS["config.key"]},
                                      "/etc/poststelle/token": {"config.token": SECRETS["config.token"]}, **identities})
        self.config.start()
        self.fetcher = ServiceInImage("fetcher", images["fetcher"], containers["fetcher"], folder,
                                      {"--config-address": self.config.address, "--lease": "2s", "--egress-allow": LOOPBACK, **tests},
                                      {"POSTSTELLE_FETCHER_DATABASE": urls["fetcher"],
                                       "POSTSTELLE_FETCHER_REDIS": self.redis.url}, {**token, **identities})


@pytest.fixture(scope="session")
def folder():
    path = tempfile.mkdtemp(prefix="poststelle-images-")
    os.chmod(path, 0o755)  # the user of the images goes through it
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def images(folder):
    subprocess.run([os.path.join(ROOT, "deploy", "image", "build.sh"), BUILD], check=True, timeout=300, stdout=subprocess.DEVNULL)
    return {name: Image(os.path.join(ROOT, "build", "images", f"{name}.tar"), os.path.join(folder, f"image-{name}"))
            for name in PROGRAMS}


@pytest.fixture(scope="session")
def containers(folder):
    """The containers of the base, by name."""
    path = os.path.join(folder, "base.yaml")
    with open(path, "w") as f:
        f.write(render(os.path.join(K8S, "base")))
    documents, _ = schemas(path)
    return {c["name"]: c for d in documents[path] if d["kind"] == "Deployment" for c in d["spec"]["template"]["spec"]["containers"]}


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_image_holds_little_and_nothing_to_climb_with(name, images):
    image = images[name]
    assert image.config["User"] == f"{UID}:{UID}"
    assert sum(m.size for m in image.members) < 60e6
    assert {os.path.basename(m.name) for m in image.members if m.isfile() and "bin" in m.name.split("/")} == PROGRAMS[name]
    for member in image.members:
        assert member.uid == member.gid == member.mtime == 0
        assert not member.mode & (stat.S_ISUID | stat.S_ISGID), member.name
        assert member.issym() or member.name == "tmp" or not member.mode & 0o022, member.name


def test_the_manifests_use_the_ports_and_programs_of_the_images(images, containers):
    for name, image in images.items():
        assert set(image.config["ExposedPorts"]) == {f"{p['containerPort']}/tcp" for p in containers[name]["ports"]}
        assert "command" not in containers[name]


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_the_images_turn_mail_into_tickets_and_end_in_order(database, folder, images, containers):
    with StackInImages(folder, images, containers, database) as stack:
        stack.start()  # before the first call: Python's gRPC may hang a later fork
        wait_until(stack.config.health, what="config to be ready")
        wait_until(stack.fetcher.health, what="the fetcher to be ready")
        assert stack.config.health(b"liveness") and stack.fetcher.health(b"liveness")
        feed = Feed(stack.fetcher.address)
        stack.create_mailbox()
        for charset, text in TEXTS.items():
            stack.dovecot.deliver("support@localhost", mail(charset, text, charset=charset, message_id=f"{charset}@example.org"))
        wait_until(lambda: len(feed.events) == len(TEXTS), 60, "the mails to be tickets")
        feed.close()
        assert {e.message.subject: e.message.text.strip() for e in feed.events} == TEXTS
        tried = stack.cli("mailbox", "test", "--unsaved", "--outbound", "--address", "x@localhost", "--host", "localhost", "--port",
                          str(free_port()), password="x", check=False)
        assert tried.returncode == 7 and b"CONNECTION_REFUSED" in tried.stdout, tried
        assert stack.fetcher.terminate() == 0
        assert stack.sender.terminate() == 0
        assert stack.config.terminate() == 0
    COUNTS["started"] = len(images)
