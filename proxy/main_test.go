package proxy

import (
	"fmt"
	"net"
	"os"
	"slices"
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails the run if a descriptor or a goroutine is left over.
func TestMain(m *testing.M) {
	if run := children[os.Getenv(childVariable)]; run != nil {
		if err := run(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(acceptorVar) != "" {
		playAcceptor()
		return
	}
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		ln.Close() // the runtime now has the epoll and eventfd that it keeps
	}
	before := descriptors()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines left over:", err)
			code = 1
		}
		for _, d := range descriptors() {
			if !slices.Contains(before, d) {
				fmt.Fprintln(os.Stderr, "descriptor left over:", d)
				code = 1
			}
		}
	}
	os.Exit(code)
}

// descriptors lists what is open.
func descriptors() []string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	var all []string
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil {
			continue // the one that listed them
		}
		all = append(all, e.Name()+" "+to)
	}
	return all
}
