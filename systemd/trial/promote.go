package trial

import "testing"

// load says how many rounds of promote and revert there are, and how many requests
// go on meanwhile over each path.
func load() (rounds int, requests int64) {
	if testing.Short() {
		return 3, 3000
	}
	return 20, 100_000
}

// dance promotes and reverts under load: nothing fails, and after each return
// new connections are answered by the right release.
func dance(t *testing.T, address string) {
	t.Helper()
	rounds, requests := load()
	l := startTraffic(t, address, 4, 4)
	each := requests / int64(2*rounds)
	for range rounds {
		run(t, "proxyctl", "-s", "web", "promote", "v2")
		mustAnswer(t, address, "v2")
		l.runFor(each)
		run(t, "proxyctl", "-s", "web", "revert")
		mustAnswer(t, address, "v1")
		l.runFor(each)
	}
	l.stop()
	l.check()
	t.Logf("%d requests, %d failed", l.done.Load(), l.failed.Load())
}

// PromotesOfAGoServer is point 2, and with it 6: proxyd is an unprivileged user with the hardened unit.
func PromotesOfAGoServer(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveGo(t)
		dance(t, web)
	})
}

// PromotesOfNginx is the same. On the direct path nginx's workers share a member of the listener's group.
func PromotesOfNginx(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		serveNginx(t)
		dance(t, web)
		run(t, "systemctl", "restart", "proxyd@web.service")
		run(t, "proxyctl", "-s", "web", "promote", "v3")
		mustAnswer(t, web, "v3")
		mustTakeItsPath(t, "web")
	})
}

// nginxScript writes nginx's config for this generation. nginx takes sockets
// through a variable of its own and knows them by address: the script looks up
// that of descriptor 3.
const nginxScript = `set -e
dir=$RUNTIME_DIRECTORY
inode=$(readlink /proc/$$/fd/3); inode=${inode#socket:[}; inode=${inode%]}
listen="unix:$(awk -v i="$inode" '$7 == i {print $8}' /proc/net/unix)"
[ "$listen" != unix: ] || listen="[::]:443 ipv6only=off" # the listener's own
cat > "$dir/nginx.conf" <<END
daemon off; worker_processes 2; pid $dir/pid; error_log stderr;
events { worker_connections 512; }
http {
  access_log off; keepalive_requests 1000000;
  client_body_temp_path $dir/t1; proxy_temp_path $dir/t2; fastcgi_temp_path $dir/t3; uwsgi_temp_path $dir/t4; scgi_temp_path $dir/t5;
  server { listen $listen; location / { return 200 "$PROXYD_RELEASE $PROXYD_GENERATION"; } }
}
END
NGINX="3;"; export NGINX
exec nginx -e stderr -p "$dir" -c "$dir/nginx.conf"
`

// serveNginx installs a real nginx as service web and starts it.
func serveNginx(t *testing.T) {
	t.Helper()
	write(t, "/srv/nginx.sh", nginxScript)
	install(t, "web", webPort, `[Service]
Type=exec
ExecStart=proxyctl exec --service web -- /bin/sh /srv/nginx.sh
DynamicUser=yes
SupplementaryGroups=proxyd
RuntimeDirectory=web-%i
KillSignal=SIGQUIT
KillMode=mixed
`, `[backend]
driver       = "systemd"
unit         = "web@{generation}.service"
non_blocking = true # its workers share the socket
`)
	run(t, "systemctl", "enable", "--now", "proxyd@web.socket", "proxyd@web.service")
	mustAnswer(t, web, "v1")
	mustTakeItsPath(t, "web")
}
