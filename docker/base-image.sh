#!/usr/bin/env bash
# Make the base images from Debian's packages, for machines that reach no image registry.
#
#   docker/base-image.sh [--force] [python] [redis]
#
# Without a name both are made. Each gets exactly the name that docker/Dockerfile and docker-compose.yml
# ask for (python:3.13-slim-trixie and redis:8.0, or BASE_IMAGE and REDIS_IMAGE), so that a plain
# `docker compose up --build` finds it in the engine's own store. An image that is present is kept; --force
# makes it anew. Needs root and debootstrap (installed by apt-get when missing), about 40 s an image.
#
# Only these local images hold the certificates that this machine trusts, and point pip at them: behind a
# proxy with a certificate of its own, a build could not reach the package index otherwise.
set -euo pipefail

readonly suite=trixie
readonly python_image=${BASE_IMAGE:-python:3.13-slim-trixie}
readonly redis_image=${REDIS_IMAGE:-redis:8.0}
readonly public_mirror=http://deb.debian.org/debian
work=

say() { printf 'base-image: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
  exit "$1"
}

# The mirror that this machine's own apt uses, Debian's public one otherwise.
debian_mirror() {
  local found
  found=$(grep -hsE '^(URIs:|deb )' /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list |
    grep -oE 'https?://[^ ]+' | grep -v security | head -n 1) || true
  printf '%s\n' "${found:-$public_mirror}"
}

need_tools() {
  docker version >/dev/null 2>&1 || fail "no Docker engine answers (docker version fails): start it, or add yourself to its group"
  [[ $(id -u) -eq 0 ]] || fail "needs root, because debootstrap unpacks a system with its owners: run 'sudo $0'"
  command -v debootstrap >/dev/null && return
  command -v apt-get >/dev/null || fail "debootstrap is missing, and there is no apt-get to install it: install it by hand"
  say "installing debootstrap"
  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends debootstrap; } >&2 ||
    fail "apt-get could not install debootstrap"
}

# What a slim image leaves out: manuals, translations, package lists and archives. Copyright files stay.
slim_down() {
  local root=$1
  find "$root/usr/share/doc" -type f ! -name copyright -delete
  rm -rf "$root"/usr/share/{man,locale,info}/* "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*
  rm -rf "${root:?}"/{dev,proc,sys,run,tmp}/* "$root"/etc/{hostname,resolv.conf,machine-id}
}

# make IMAGE PACKAGES [CHANGE...]: unpack Debian with PACKAGES and import it as IMAGE, with these Dockerfile lines.
make_image() {
  local image=$1 packages=$2 root changes=() change
  shift 2
  root=$work/root-${image//[^a-z0-9.]/-}
  say "making $image from Debian $suite ($packages)"
  # debootstrap mounts /proc inside the new root, so it gets a mount namespace that takes it along when it ends.
  unshare --mount debootstrap --variant=minbase --cache-dir="$work/archives" --include="$packages" "$suite" "$root" "$mirror" \
    >"$work/debootstrap.log" 2>&1 || { tail -n 20 "$work/debootstrap.log" >&2; fail "debootstrap of $image failed (mirror: $mirror)"; }
  printf 'deb %s %s main\n' "$public_mirror" "$suite" >"$root/etc/apt/sources.list"
  if [[ -e $root/usr/bin/python3 ]]; then ln -s /usr/bin/python3 "$root/usr/local/bin/python"; fi
  for change in "ENV LANG=C.UTF-8" "LABEL io.kvorum.base-image=local" "$@"; do changes+=(--change "$change"); done
  if [[ -r $host_certificates ]]; then
    install -D -m 644 "$host_certificates" "$root/etc/ssl/certs/host-certificates.crt"
    for change in SSL_CERT_FILE PIP_CERT; do changes+=(--change "ENV $change=/etc/ssl/certs/host-certificates.crt"); done
  fi
  slim_down "$root"
  tar --create --numeric-owner --directory "$root" . | docker import "${changes[@]}" - "$image" >/dev/null
  rm -rf "$root"
  say "made $image, $(docker image inspect --format '{{.Size}}' "$image" | awk '{printf "%.0f MB", $1 / 1e6}')"
}

present() { docker image inspect "$1" >/dev/null 2>&1; }

force=
wanted=()
for argument in "$@"; do
  case $argument in
    --force) force=yes ;;
    -h | --help) usage 0 ;;
    python | redis) wanted+=("$argument") ;;
    *) say "unknown argument '$argument'"; usage 2 >&2 ;;
  esac
done
[[ ${#wanted[@]} -gt 0 ]] || wanted=(python redis)

missing=()
for name in "${wanted[@]}"; do
  image_variable=${name}_image
  if [[ -z $force ]] && present "${!image_variable}"; then say "${!image_variable} is present"; else missing+=("$name"); fi
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

need_tools
mirror=$(debian_mirror)
host_certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/archives"
for name in "${missing[@]}"; do
  case $name in
    python) make_image "$python_image" ca-certificates,python3,python3-venv 'CMD ["python3"]' ;;
    redis) make_image "$redis_image" redis-server 'WORKDIR /data' 'EXPOSE 6379' 'CMD ["redis-server", "--protected-mode", "no"]' ;;
  esac
done
