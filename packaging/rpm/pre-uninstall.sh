# $1 is how many versions will be left: 0 is the end.
if [ "$1" = 0 ]; then
  systemctl --no-reload disable ws-keepalive.service ws-keepalive-server@.service >/dev/null 2>&1
  if [ -d /run/systemd/system ]; then
    systemctl stop ws-keepalive.service 'ws-keepalive-server@*.service' >/dev/null 2>&1
  fi
fi
exit 0
