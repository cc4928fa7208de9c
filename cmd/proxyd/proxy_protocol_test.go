package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An nginx that expects the PROXY protocol answers with the client that it was
// told of.
func nginxThatTells(t *testing.T) []string {
	t.Helper()
	script := strings.Replace(nginxScript, "listen $listen;", "listen $listen proxy_protocol;", 1)
	script = strings.Replace(script, "$PROXYD_GENERATION\"", `\$proxy_protocol_addr \$proxy_protocol_port"`, 1)
	script = fmt.Sprintf(script, `listen="unix:$2"; case "$2" in /*) ;; *) listen="127.0.0.1:$2";; esac`, "", need(t, "nginx"))
	path := filepath.Join(shortTempDir(t), "nginx.sh")
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"/bin/sh", path, shortTempDir(t)}
}

// say sends first and a request, and gives the status and the answer.
func say(t *testing.T, address, first string) (client *net.TCPAddr, status int, answer string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, first+"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return c.LocalAddr().(*net.TCPAddr), resp.StatusCode, strings.TrimSpace(string(body))
}

// A real nginx behind proxyd shows each client's address: the one that it has,
// the one that a trusted proxy in front names, and never one that it claims.
func TestRealNginxKnowsItsClients(t *testing.T) {
	const claim = "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n"
	for _, version := range []string{"v1", "v2"} {
		for _, place := range []string{"{socket}", "{port}"} {
			for _, check := range []string{"connect", "http"} {
				t.Run(version+place+check, func(t *testing.T) {
					toml := fmt.Sprintf("[ready]\ncheck = %q\npath = \"/\"\n", check)
					d := newDaemon(t, setup{
						command:  append(nginxThatTells(t), place),
						listener: fmt.Sprintf("proxy_protocol = %q", version), toml: toml,
					})
					d.startServing()
					for _, release := range []string{"v1", "v2"} {
						d.mustCtl("promote", release)
						c, status, got := say(t, d.address, "")
						if want := fmt.Sprintf("%s 127.0.0.1 %d", release, c.Port); status != 200 || got != want {
							t.Errorf("nginx says %d %q, want %q", status, got, want)
						}
						if _, status, got := say(t, d.address, claim); status != 400 {
							t.Errorf("a client that nobody trusts claims an address, and nginx says %d %q", status, got)
						}
					}
					d.stop()

					trusting := newDaemon(t, setup{
						command:  append(nginxThatTells(t), place),
						listener: fmt.Sprintf("proxy_protocol = %q\naccept_proxy = [\"10.0.0.0/8\", \"127.0.0.1\"]", version), toml: toml,
					})
					trusting.startServing()
					if _, status, got := say(t, trusting.address, claim); status != 200 || got != "v1 192.0.2.7 4711" {
						t.Errorf("nginx says %d %q of the client of a trusted proxy", status, got)
					}
				})
			}
		}
	}
}

// A [[listener]] without an address says what holds for a listener that systemd
// passes: the test hands proxyd a socket as systemd would.
func TestProxyProtocolOnSystemdsListener(t *testing.T) {
	d := newDaemon(t, setup{command: append(nginxThatTells(t), "{socket}"), listener: `proxy_protocol = "v2"`})
	l, err := net.Listen("tcp4", d.address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d.pass(f)
	d.startServing()
	c, status, got := say(t, d.address, "")
	if want := fmt.Sprintf("v1 127.0.0.1 %d", c.Port); status != 200 || got != want {
		t.Errorf("nginx says %d %q, want %q", status, got, want)
	}
}
