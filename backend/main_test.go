package backend

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain counts goroutines and descriptors at the end: whoever starts one
// here ends it.
func TestMain(m *testing.M) {
	if r, w, err := os.Pipe(); err == nil { // the runtime's own poller is open from now on
		r.Close()
		w.Close()
	}
	before := descriptors()
	code := m.Run()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "goroutines are left over:", err)
		code = max(code, 1)
	}
	if after := descriptors(); code == 0 && after > before {
		fmt.Fprintf(os.Stderr, "%d descriptors are open, %d were before the tests\n", after, before)
		code = 1
	}
	os.Exit(code)
}

func descriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	return len(entries)
}
