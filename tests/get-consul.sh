#!/usr/bin/env bash
# A real Consul for the tests that compare with one or use its command line: Debian's last release of it that is free software, 1.8.7.
# Its package is fetched from the mirror that this machine's apt is set up with, checked by Debian's keys, and unpacked; nothing is installed.
#
# usage: tests/get-consul.sh FOLDER     prints the path of the program
set -euo pipefail
folder=$(realpath -m "${1:?the folder to unpack into}")
program=$folder/usr/bin/consul

if [[ ! -x $program ]]; then
  # shellcheck disable=SC2016  # apt-get expands it
  site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | head -n 1 || true)
  if [[ -z $site ]]; then
    echo "get-consul: apt on this machine has no mirror of Debian" >&2
    exit 1
  fi
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$work"/lists/partial "$work"/cache/archives/partial
  cat >"$work/debian.sources" <<SOURCE
Types: deb
URIs: $site
Suites: bullseye
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCE
  apt=(apt-get -qq -o "Dir::Etc::SourceList=/dev/null" -o "Dir::Etc::SourceParts=$work/" -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
  "${apt[@]}" update >&2
  (cd "$work" && "${apt[@]}" download consul/bullseye >&2)
  dpkg-deb --extract "$work"/consul_*.deb "$folder"
fi
"$program" version >&2
echo "$program"
