package proxy

import (
	"io"
	"net"
	"sync"
	"testing"
)

// BenchmarkRelay echoes messages through the proxy on one connection. What it
// allocates is counted over the whole program: the loops must add nothing.
func BenchmarkRelay(b *testing.B) {
	for _, network := range []string{"tcp", "unix"} {
		for _, size := range []struct {
			name string
			n    int
		}{{"1k", 1 << 10}, {"64k", 64 << 10}, {"1m", 1 << 20}} {
			b.Run("net="+network+"/size="+size.name, func(b *testing.B) {
				benchmarkRelay(b, network, size.n)
			})
		}
	}
}

func benchmarkRelay(b *testing.B, network string, size int) {
	f := newFront(b, "tcp", Config{Loops: 1})
	back := listenOn(b, network)
	f.Switch(f.to(b, 1, back.Addr()))
	client := dial(b, f.ln)
	server := take(b, back)
	var echo, feeder sync.WaitGroup
	echo.Go(func() { // ends with the client's stream
		buf := make([]byte, size)
		for {
			if _, err := io.ReadFull(server, buf); err != nil {
				return
			}
			if _, err := server.Write(buf); err != nil {
				return
			}
		}
	})
	in, out := make([]byte, size), make([]byte, size)
	next := make(chan struct{})
	feeder.Go(func() { // ends with next
		for range next {
			client.Write(out)
		}
	})
	b.SetBytes(2 * int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		next <- struct{}{}
		if _, err := io.ReadFull(client, in); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	close(next)
	feeder.Wait()
	client.Close()
	echo.Wait()
}

// BenchmarkConnect makes a connection, gets one byte and ends it.
func BenchmarkConnect(b *testing.B) {
	for _, network := range []string{"tcp", "unix"} {
		b.Run("net="+network, func(b *testing.B) {
			f := newFront(b, "tcp", Config{Loops: 1})
			back := listenOn(b, network)
			f.Switch(f.to(b, 1, back.Addr()))
			var server sync.WaitGroup
			server.Go(func() { // ends when back is closed
				for {
					c, err := back.Accept()
					if err != nil {
						return
					}
					c.Write([]byte("x"))
					c.Close()
				}
			})
			for b.Loop() {
				c, err := net.Dial("tcp", f.ln.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				io.Copy(io.Discard, c)
				c.Close()
			}
			back.Close()
			server.Wait()
		})
	}
}
