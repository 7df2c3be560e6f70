# The user of the service, as sysusers.d names it: EL 9's rpm does not read that.
getent group ws-keepalive >/dev/null || groupadd --system ws-keepalive
getent passwd ws-keepalive >/dev/null || useradd --system --gid ws-keepalive --home-dir / --no-create-home \
  --shell /usr/sbin/nologin --comment 'ws-keepalive daemon' ws-keepalive
exit 0
