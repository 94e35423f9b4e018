#!/usr/bin/python3
"""pack.py STAGE ROOT NAME OUT: the file tree ROOT as an OCI archive with one layer.

What the image runs (USER, ENTRYPOINT, EXPOSE, ENV, WORKDIR) comes from that stage of the Dockerfile beside this file. The same
tree gives the same bytes: sorted, owned by root, no times.
"""
import gzip
import hashlib
import io
import json
import os
import platform
import sys
import tarfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def stage_config(stage):
    """The image's config by the Dockerfile."""
    config, inside = {}, False
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "Dockerfile")) as dockerfile:
        for line in dockerfile:
            word, _, rest = line.strip().partition(" ")
            if word == "FROM":
                inside = rest.split()[-1] == stage and rest.split()[0] == "scratch"
            elif not inside or word in ("", "#", "COPY"):
                continue
            elif word == "USER":
                config["User"] = rest
            elif word == "ENTRYPOINT":
                config["Entrypoint"] = json.loads(rest)
            elif word == "EXPOSE":
                config["ExposedPorts"] = {f"{port}/tcp": {} for port in rest.split()}
            elif word == "ENV":
                config.setdefault("Env", []).append(rest)
            elif word == "WORKDIR":
                config["WorkingDir"] = rest
            else:
                raise SystemExit(f"Dockerfile, stage {stage}: can't pack {word}")
    if "Entrypoint" not in config:
        raise SystemExit(f"Dockerfile has no stage FROM scratch AS {stage} with an ENTRYPOINT")
    return config


def layer_of(root):
    def by_root(entry):
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return entry

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for folder, folders, files in os.walk(root):
            folders.sort()
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            if folder != root:
                tar.add(folder, os.path.relpath(folder, root), recursive=False, filter=by_root)
            for name in sorted(files + links):
                path = os.path.join(folder, name)
                tar.add(path, os.path.relpath(path, root), recursive=False, filter=by_root)
    return out.getvalue()


def main(stage, root, name, out):
    blobs = {}

    def blob(media_type, data):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        blobs["blobs/" + digest.replace(":", "/")] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def document(value):
        return json.dumps(value, sort_keys=True).encode()

    tree = layer_of(root)
    layer = blob("application/vnd.oci.image.layer.v1.tar+gzip", gzip.compress(tree, 6, mtime=0))
    config = blob("application/vnd.oci.image.config.v1+json", document({
        "architecture": ARCHITECTURES[platform.machine()], "os": "linux", "config": stage_config(stage),
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tree).hexdigest()]}}))
    manifest = blob("application/vnd.oci.image.manifest.v1+json", document({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": [layer]}))
    # docker and containerd read the name from different annotations.
    manifest["annotations"] = {"org.opencontainers.image.ref.name": name.rsplit(":", 1)[1],
                               "io.containerd.image.name": "docker.io/library/" + name}
    blobs["index.json"] = document({"schemaVersion": 2, "manifests": [manifest]})
    blobs["oci-layout"] = document({"imageLayoutVersion": "1.0.0"})
    with tarfile.open(out + ".new", "w") as archive:
        for path, data in sorted(blobs.items()):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    os.rename(out + ".new", out)
    print(f"{name}: {len(tree) / 1e6:.1f} MB of files, {layer['size'] / 1e6:.1f} MB to pull")


if __name__ == "__main__":
    main(*sys.argv[1:])
