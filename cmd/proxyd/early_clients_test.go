package main

import (
	"net"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/seed8fae2174/proxyd/activation"
)

// A client that was accepted while its listener was opened is served like all
// others, once there is somebody to serve it.
func TestClientsFromTheOpeningOfAListenerAreServed(t *testing.T) {
	l, err := activation.Listen("http", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	client, err := net.Dial("tcp", l.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	fd, _, err := unix.Accept4(l.FD, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	l.Clients = []int{fd}
	d := &daemon{
		config: &Config{Listeners: []ListenerConfig{{Name: "http"}}}, listeners: []activation.Listener{l},
		log: hclog.NewNullLogger(),
	}
	if err := d.openProxy(); err != nil {
		t.Fatal(err)
	}
	defer d.proxy.Close()
	route, err := d.proxy.NewRoute(1, map[string]net.Addr{"http": backend.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	d.proxy.Switch(route)
	backend.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	served, err := backend.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	client.SetDeadline(time.Now().Add(patience))
	served.Write([]byte("x"))
	var b [1]byte
	if n, err := client.Read(b[:]); n != 1 || err != nil {
		t.Errorf("the client read %d, %v", n, err)
	}
}
