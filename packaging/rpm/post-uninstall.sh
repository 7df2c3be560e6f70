# $1 is how many versions are left. After an upgrade the old files are gone by now.
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload >/dev/null 2>&1
  if [ "$1" != 0 ]; then
    systemctl try-restart ws-keepalive.service 'ws-keepalive-server@*.service' >/dev/null 2>&1
  fi
fi
# The directories, which the package does not own, for cargo-generate-rpm packs none. What somebody
# put there stays.
if [ "$1" = 0 ]; then
  rmdir --ignore-fail-on-non-empty /etc/ws-keepalive /etc/ws-keepalive.d \
    /usr/share/ws-keepalive/grafana /usr/share/ws-keepalive/prometheus /usr/share/ws-keepalive \
    /usr/share/doc/ws-keepalive/config/examples /usr/share/doc/ws-keepalive/config \
    /usr/share/doc/ws-keepalive/examples/systemd \
    /usr/share/doc/ws-keepalive/examples/proxies/nginx /usr/share/doc/ws-keepalive/examples/proxies/haproxy \
    /usr/share/doc/ws-keepalive/examples/proxies/caddy /usr/share/doc/ws-keepalive/examples/proxies \
    /usr/share/doc/ws-keepalive/examples /usr/share/doc/ws-keepalive/docs /usr/share/doc/ws-keepalive \
    /usr/share/licenses/ws-keepalive \
    >/dev/null 2>&1
fi
exit 0
