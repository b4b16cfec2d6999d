# Sourced by deploy/start and tests/run: what a build needs on a fresh Debian machine, and where it is kept.
export KONTIKI_CACHE="${KONTIKI_CACHE:-$HOME/.cache/kontiki}"
# Outside the checkout, so that RocksDB is built once on a machine.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$KONTIKI_CACHE/target}"
mkdir -p "$KONTIKI_CACHE"

die() { echo "$0: $*" >&2; exit 1; }

command -v cargo >/dev/null || die "no Rust toolchain: install one with rustup (https://rustup.rs)"

# RocksDB is compiled from source and its bindings are made with libclang.
need_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  [ "$(id -u)" -eq 0 ] || die "packages are missing, run: sudo apt-get install ${missing[*]}"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null ||
    die "packages could not be installed: ${missing[*]}"
}
if command -v dpkg-query >/dev/null; then need_packages g++ clang libclang-dev; fi

# RocksDB, compiled once on a machine and for all profiles, unless somebody brings one.
if [ -z "${ROCKSDB_LIB_DIR:-}" ]; then
  version=$(grep -A1 '^name = "librocksdb-sys"' Cargo.lock | sed -n 's/^version = "\(.*\)"/\1/p')
  features=$(grep '^rocksdb = ' Cargo.toml | cksum | cut -d' ' -f1)
  rocksdb="$KONTIKI_CACHE/rocksdb-$version-$features"
  if [ ! -e "$rocksdb/librocksdb.a" ]; then
    made=$(mktemp -d "$KONTIKI_CACHE/rocksdb.XXXXXX")
    cargo build --release --locked -p librocksdb-sys --target-dir "$made"
    mkdir -p "$rocksdb"
    mv "$made"/release/build/librocksdb-sys-*/out/librocksdb.a "$rocksdb/"
    rm -rf "$made"
  fi
  export ROCKSDB_LIB_DIR="$rocksdb" ROCKSDB_STATIC=1
fi
