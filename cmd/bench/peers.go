package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// allPeers are in the order of the report.
func allPeers() []*peer {
	return []*peer{
		{name: "proxyd", about: "built from this tree, as `proxyd --config FILE`, path relay, defaults", unix: true, ours: true,
			perConn: 2, find: findProxyd, start: startProxyd},
		{name: "direct", about: "the same, path direct: the kernel gives each client to the backend, by TCP", unix: true, ours: true,
			perConn: 0, find: findProxyd, start: startDirect},
		{name: "haproxy", about: "mode tcp, option splice-auto, nbthread 2", unix: true,
			perConn: 2, find: findHAProxy, start: startHAProxy},
		{name: "nginx", about: "stream, worker_processes 2, no access log", unix: true,
			perConn: 2, find: findNginx, start: startNginx},
		{name: "socket-proxyd", about: "systemd-socket-proxyd under systemd-socket-activate", unix: true,
			perConn: 6, find: findSocketProxyd, start: startSocketProxyd},
		{name: "go-copy", about: "net.Listener, two goroutines and two io.Copy a connection", unix: true,
			perConn: 6, find: findSelf, start: startRelay},
		{name: "none", about: "the load speaks to the backend itself, by TCP; not a peer in ratios", unix: true, direct: true,
			perConn: 0, find: findSelf, start: startNone},
	}
}

func backendFlag(address string) (flag, value string) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return "--unix", path
	}
	return "--tcp", address
}

func findSelf(context.Context, *bench) (string, error) { return "built in", nil }

func startNone(_ context.Context, _ *bench, p place) (*running, error) {
	back, err := startBackend(p.backend)
	if err != nil {
		return nil, err
	}
	return &running{front: p.backend, children: []*child{back}, backends: []int{back.pid()}}, nil
}

func startRelay(_ context.Context, _ *bench, p place) (*running, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return behind(p, self, "relay", "--listen", p.front, "--to", p.backend, "--while", strconv.Itoa(os.Getpid()))
}

// The system directories of a daemon are not always in a user's PATH.
func program(names ...string) (string, error) {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
		for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin"} {
			if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("%s: %w", names[0], errNotInstalled)
}

var numbers = regexp.MustCompile(`[0-9]+(\.[0-9]+)+|\b[0-9]{3}\b`)

// release runs a program's own version flag and takes the number out of it.
func release(ctx context.Context, path, flag string) string {
	out, _ := exec.CommandContext(ctx, path, flag).CombinedOutput()
	return numbers.FindString(string(out))
}

func findHAProxy(ctx context.Context, _ *bench) (string, error) {
	path, err := program("haproxy")
	if err != nil {
		return "", err
	}
	return release(ctx, path, "-v"), nil
}

// maxconn leaves descriptors for the pipes that splicing borrows.
const haproxyConfig = `global
    nbthread 2
    maxconn 6000
    maxpipes 1000
defaults
    mode tcp
    option splice-auto
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend bench
    bind %s
    default_backend bench
backend bench
    server only %s
`

func startHAProxy(_ context.Context, _ *bench, p place) (*running, error) {
	path, err := program("haproxy")
	if err != nil {
		return nil, err
	}
	to := p.backend
	if p.kind == "unix" {
		to = "unix@" + strings.TrimPrefix(to, "unix:")
	}
	config := filepath.Join(p.dir, "haproxy.cfg")
	if err := os.WriteFile(config, fmt.Appendf(nil, haproxyConfig, p.front, to), 0o644); err != nil {
		return nil, err
	}
	return behind(p, path, "-q", "-db", "-f", config)
}

// nginxModules are where packages put the stream module when it is not built in.
var nginxModules = []string{
	"/usr/lib/nginx/modules/ngx_stream_module.so",
	"/usr/lib64/nginx/modules/ngx_stream_module.so",
	"/usr/share/nginx/modules/ngx_stream_module.so",
}

// nginxStream gives the line that loads the stream module; empty: it is built in.
func nginxStream(ctx context.Context, path string) (string, error) {
	out, err := exec.CommandContext(ctx, path, "-V").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ask nginx for its modules: %w", err)
	}
	if regexp.MustCompile(`--with-stream(\s|$)`).Match(out) {
		return "", nil
	}
	for _, m := range nginxModules {
		if _, err := os.Stat(m); err == nil {
			return "load_module " + m + ";", nil
		}
	}
	return "", fmt.Errorf("nginx's stream module: %w (Debian: libnginx-mod-stream)", errNotInstalled)
}

func findNginx(ctx context.Context, _ *bench) (string, error) {
	path, err := program("nginx")
	if err != nil {
		return "", err
	}
	if _, err := nginxStream(ctx, path); err != nil {
		return "", err
	}
	return release(ctx, path, "-v"), nil
}

const nginxConfig = `%s
%s
daemon off;
worker_processes 2;
pid %s/nginx.pid;
error_log stderr crit;
events { worker_connections 12000; }
stream {
    server {
        listen %s;
        proxy_connect_timeout 5s;
        proxy_timeout 1h;
        proxy_pass %s;
    }
}
`

func startNginx(ctx context.Context, _ *bench, p place) (*running, error) {
	path, err := program("nginx")
	if err != nil {
		return nil, err
	}
	module, err := nginxStream(ctx, path)
	if err != nil {
		return nil, err
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // the backend's socket is not for everybody
	}
	config := filepath.Join(p.dir, "nginx.conf")
	text := fmt.Appendf(nil, nginxConfig, module, user, p.dir, p.front, p.backend)
	if err := os.WriteFile(config, text, 0o644); err != nil {
		return nil, err
	}
	return behind(p, path, "-e", "stderr", "-p", p.dir, "-c", config)
}

// socketProxyd is not in PATH anywhere.
func socketProxyd() (activate, proxy string, err error) {
	if activate, err = program("systemd-socket-activate"); err != nil {
		return "", "", err
	}
	for _, proxy := range []string{"/usr/lib/systemd/systemd-socket-proxyd", "/lib/systemd/systemd-socket-proxyd"} {
		if _, err := os.Stat(proxy); err == nil {
			return activate, proxy, nil
		}
	}
	return "", "", fmt.Errorf("systemd-socket-proxyd: %w", errNotInstalled)
}

func findSocketProxyd(ctx context.Context, _ *bench) (string, error) {
	_, proxy, err := socketProxyd()
	if err != nil {
		return "", err
	}
	return release(ctx, proxy, "--version"), nil
}

func startSocketProxyd(_ context.Context, _ *bench, p place) (*running, error) {
	activate, proxy, err := socketProxyd()
	if err != nil {
		return nil, err
	}
	return behind(p, activate, "-l", p.front, proxy, "--connections-max=8000", strings.TrimPrefix(p.backend, "unix:"))
}
