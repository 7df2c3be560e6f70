# $1 is how many versions there are now: 1 is an installation, 2 an upgrade, which leaves the choice of
# who disabled the service and restarts what ran. A start that fails does not fail the installation.
# The empty directories: cargo-generate-rpm packs none.
systemd-tmpfiles --create ws-keepalive.conf >/dev/null 2>&1
[ -d /run/systemd/system ] && systemctl daemon-reload >/dev/null 2>&1
if [ "$1" = 1 ]; then
  systemctl enable ws-keepalive.service >/dev/null 2>&1
  [ -d /run/systemd/system ] && systemctl start ws-keepalive.service >/dev/null 2>&1
fi
exit 0
