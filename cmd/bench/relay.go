package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"strings"
)

// relayMain is the re-executed bench as the relay that anyone would write in Go
// first: relay --listen ADDRESS --to ADDRESS [--while PID]. Two goroutines a
// connection, an io.Copy each.
func relayMain(args []string) error {
	flags := flag.NewFlagSet("relay", flag.ContinueOnError)
	address := flags.String("listen", "", "address to listen on")
	to := flags.String("to", "", "host:port or unix:PATH")
	while := flags.Int("while", 0, "process to live as long as")
	if err := flags.Parse(args); err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", *address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	go relayAll(l, *to)
	return awaitEnd(*while)
}

// halfCloser is a net.Conn of either family.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// relayAll accepts until the process ends; nobody waits for it.
func relayAll(l net.Listener, to string) {
	network, address := "tcp", to
	if path, ok := strings.CutPrefix(to, "unix:"); ok {
		network, address = "unix", path
	}
	for {
		client, err := l.Accept()
		if err != nil {
			continue
		}
		go relayOne(client.(halfCloser), network, address)
	}
}

// relayOne ends with its connection.
func relayOne(client halfCloser, network, address string) {
	defer client.Close()
	server, err := net.Dial(network, address)
	if err != nil {
		return
	}
	defer server.Close()
	up := make(chan struct{})
	go copyHalf(server.(halfCloser), client, up)
	copyHalf(client, server.(halfCloser), nil)
	<-up
}

// copyHalf ends with from's end of stream or an error of either; relayOne waits.
func copyHalf(to, from halfCloser, done chan<- struct{}) {
	_, _ = io.Copy(to, from)
	_ = to.CloseWrite()
	if done != nil {
		close(done)
	}
}
