# Debian's packages by name, for the scripts beside it, which source this. No package's service starts.

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

apt_fresh=
# The lists, once per script. A machine that was just started may be at them itself, and apt-get knows
# no way to wait for that.
apt_update() {
  [ -z "$apt_fresh" ] || return 0
  local said deadline=$((SECONDS + 300))
  until said=$(as_root env LC_ALL=C apt-get -qq update 2>&1); do
    if [ "$SECONDS" -ge "$deadline" ] || ! grep -q 'Could not get lock' <<<"$said"; then
      printf '%s\n' "$said" >&2
      return 1
    fi
    sleep 2
  done
  apt_fresh=yes
}

# apt_install PACKAGE..
apt_install() {
  apt_update
  (
    # What an interrupted installation left is in the way of the next; what is still wrong then, that says.
    [ -z "$(dpkg --audit)" ] || as_root dpkg --configure -a >&2 || true
    # invoke-rc.d asks this file, and its 101 forbids. Where there is one it stays in charge.
    policy=/usr/sbin/policy-rc.d
    if ! [ -e "$policy" ]; then
      trap 'as_root rm -f "$policy"' EXIT
      printf '#!/bin/sh\nexit 101\n' | as_root install -m 755 /dev/stdin "$policy"
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install \
      --no-install-recommends -y "$@" >/dev/null
  )
}
