package activation

import (
	"slices"
	"testing"
)

func TestScrubEnv(t *testing.T) {
	env := []string{
		"A=1", "LISTEN_PID=1", "LISTEN_FDS=2", "LISTEN_FDNAMES=a:b", "LISTEN_PIDFDID=3", "NOTIFY_SOCKET=/x",
		"WATCHDOG_PID=1", "WATCHDOG_USEC=2", "LISTEN_ADDRESS=:80", "X=NOTIFY_SOCKET=1", "LISTEN_FDS", "A=2",
	}
	before := slices.Clone(env)
	want := []string{"A=1", "LISTEN_ADDRESS=:80", "X=NOTIFY_SOCKET=1", "A=2"}
	if got := ScrubEnv(env); !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	if !slices.Equal(env, before) {
		t.Fatalf("the argument became %q", env)
	}
}

func TestTellNobody(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	must(t, Tell("READY=1"))
	t.Setenv("NOTIFY_SOCKET", t.TempDir()+"/none")
	if err := Tell("READY=1"); err == nil {
		t.Fatal("telling nobody is no error, though somebody asked")
	}
}
