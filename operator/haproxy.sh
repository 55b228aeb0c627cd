#!/usr/bin/env bash
# haproxy.sh FOLDER: put HAProxy 3.0, of Debian 13, into FOLDER with all libraries that it needs, Debian 13's C library too.
# It runs on any Linux, from any other folder by a link, and from nowhere else: the paths in it are FOLDER's.
# The image of the operator has it by this, and the machine that runs the tests (hack/install). Why: docs/adr/0019.
# Needs apt, dpkg, patchelf and Debian's keys (debian-archive-keyring).
set -euo pipefail

folder=${1:?haproxy.sh FOLDER}
keys=/usr/share/keyrings/debian-archive-keyring.gpg
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# mirror SUITE DEFAULT: where this machine has that suite of Debian's from, which need not be Debian's own servers.
mirror() {
  local found
  # shellcheck disable=SC2016  # apt's own variable
  found=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $1" 'Created-By: Packages' 2> /dev/null | grep -m 1 "${2##*/}/\?$") || found=$2
  echo "$found"
}

# An apt of its own: nothing that is installed here counts, and nothing is changed.
private_apt() {
  apt-get -qq --option "Dir::State=$work/state" --option "Dir::State::status=$work/state/status" --option "Dir::Cache=$work/cache" \
    --option "Dir::Etc::SourceList=$work/sources.list" --option Dir::Etc::SourceParts=/dev/null --option Dir::Etc::Preferences=/dev/null \
    --option Dir::Etc::PreferencesParts=/dev/null --option APT::Sandbox::User=root --option APT::Install-Recommends=false "$@"
}

download() {
  local codename package
  # shellcheck source=/dev/null
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  mkdir -p "$work"/{state/lists,cache/archives}/partial
  touch "$work/state/status"
  {
    echo "deb [signed-by=$keys] $(mirror "$codename" http://deb.debian.org/debian) trixie main"
    echo "deb [signed-by=$keys] $(mirror "$codename-security" http://deb.debian.org/debian-security) trixie-security main"
  } > "$work/sources.list"
  private_apt update
  private_apt install --download-only haproxy > /dev/null
  for package in "$work"/cache/archives/*.deb; do dpkg-deb --extract "$package" "$work/root"; done
}

# What the program loads, by the word of Debian 13's own loader, and the licenses of all that was fetched.
copy() {
  local program=$work/root/usr/sbin/haproxy libraries loader name path
  libraries=$(dirname "$(find "$work/root/usr/lib" -name libc.so.6 -print -quit)")
  loader=$libraries/$(basename "$(patchelf --print-interpreter "$program")")
  mkdir -p "$folder"/{bin,lib,licenses}
  cp --dereference "$loader" "$folder/lib/"
  "$loader" --list --library-path "$libraries" "$program" | while read -r name _ path _; do
    if [[ $name != */* && $path == /* ]]; then cp --dereference "$path" "$folder/lib/$name"; fi
  done
  cp "$program" "$folder/bin/"
  for path in "$work"/root/usr/share/doc/*/copyright; do
    cp --dereference "$path" "$folder/licenses/$(basename "$(dirname "$path")")"
  done
  # A path of the whole process and not of one file (force-rpath): libraries find each other by it, too.
  patchelf --set-interpreter "$folder/lib/${loader##*/}" --force-rpath --set-rpath "$folder/lib" "$folder/bin/haproxy"
}

download
copy
"$folder/bin/haproxy" -v > /dev/null
