package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// The three ways in which a real nginx gets its socket. Each is a shell wrapper
// that writes nginx's config for this generation and execs it; v1 and v2 answer
// differently.
var nginxWays = []struct {
	name    string
	listen  string // the argument that names what to listen on, if any
	find    string // shell that sets $listen
	handed  string // shell that hands nginx the socket
	backend string
}{
	{name: "socket", listen: "{socket}", find: `listen="unix:$2"`},
	{name: "port", listen: "{port}", find: `listen="127.0.0.1:$2"`},
	// nginx takes sockets through a variable of its own, and knows them by
	// address: the wrapper looks up what descriptor 3 is. nginx does not set
	// O_NONBLOCK on them, and of two workers that wake for one connection the
	// second would hang in accept(2).
	{name: "handed over", backend: "non_blocking = true", find: `inode=$(readlink /proc/$$/fd/3); inode=${inode#socket:[}; inode=${inode%]}
listen="unix:$(awk -v i="$inode" '$7 == i {print $8}' /proc/net/unix)"
[ "$listen" != unix: ] || listen=$(ss -Htlnpe | awk -v i="ino:$inode" '{for (f = 1; f <= NF; f++) if ($f == i) print $4}')`, handed: `NGINX="3;"; export NGINX`},
}

const nginxScript = `set -e
dir=$1/$PROXYD_GENERATION; mkdir -p "$dir"
%s
cat > "$dir/nginx.conf" <<END
daemon off; worker_processes 2; pid $dir/pid; error_log stderr;
events { worker_connections 512; }
http {
  access_log off; keepalive_requests 1000000;
  client_body_temp_path $dir/t1; proxy_temp_path $dir/t2; fastcgi_temp_path $dir/t3; uwsgi_temp_path $dir/t4; scgi_temp_path $dir/t5;
  server { listen $listen; location / { return 200 "$PROXYD_RELEASE $PROXYD_GENERATION"; } }
}
END
%s
exec %s -e stderr -p "$dir" -c "$dir/nginx.conf"
`

// nginxCommand gives the command of one of the nginxWays.
func nginxCommand(t *testing.T, listen, find, handed string) []string {
	t.Helper()
	nginx := need(t, "nginx")
	script := fmt.Sprintf(nginxScript, find, handed, nginx)
	path := filepath.Join(shortTempDir(t), "nginx.sh")
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	command := []string{"/bin/sh", path, shortTempDir(t)}
	if listen != "" {
		command = append(command, listen)
	}
	return command
}

// A real nginx is promoted and reverted 20 times under load: no request fails,
// and after each return new connections are answered by the right release.
func TestRealNginx(t *testing.T) {
	t.Parallel() // with the one that waits for a minute
	rounds, requests := 20, int64(100_000)
	if testing.Short() {
		rounds, requests = 3, 3000
	}
	for _, way := range nginxWays {
		t.Run(way.name, func(t *testing.T) {
			d := newDaemon(t, setup{command: nginxCommand(t, way.listen, way.find, way.handed), backend: way.backend})
			d.startServing()
			d.mustAnswer("v1")
			onPath := func() {
				t.Helper()
				if way.handed != "" { // the others bind by themselves
					d.mustKeepToThePath()
				}
			}
			onPath()
			l := startTraffic(t, d.address)
			perStep := requests / int64(2*rounds)
			for range rounds {
				d.mustCtl("promote", "v2")
				d.mustAnswer("v2")
				onPath()
				l.runFor(perStep)
				d.mustCtl("revert")
				d.mustAnswer("v1")
				onPath()
				l.runFor(perStep)
			}
			d.mustCtl("promote", "v2")
			d.mustAnswer("v2")
			l.stop()
			l.check()
			t.Logf("%d requests, %d failed", l.done.Load(), l.failed.Load())
		})
	}
}
