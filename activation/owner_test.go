package activation

import (
	"net"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// Whose a socket is says who has opened it, also to who listens beside it.
func TestOwner(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		members, err := ListenGroup("http", address, 2)
		must(t, err)
		defer closeAll(t, members)
		port := members[0].Addr.(*net.TCPAddr).Port
		mine := os.Geteuid()
		if uid, err := members[0].Owner(); uid != mine || err != nil {
			t.Errorf("the owner is %d, %v", uid, err)
		}
		if users, err := Listening(port); err != nil || !slices.Equal(users, []int{mine}) {
			t.Errorf("users %v, %v", users, err)
		}
		if shares, err := members[1].Shares(); !shares || err != nil {
			t.Errorf("a member of a group shares: %v, %v", shares, err)
		}
		if mine != 0 {
			continue
		}
		must(t, unix.Fchown(members[1].FD, 4711, -1))
		if uid, err := members[1].Owner(); uid != 4711 || err != nil {
			t.Errorf("the new owner is %d, %v", uid, err)
		}
		if users, err := Listening(port); err != nil || !slices.Contains(users, 4711) || len(users) != 2 {
			t.Errorf("users %v, %v", users, err)
		}
	}
	single, err := Listen("http", "127.0.0.1:0")
	must(t, err)
	port := single.Addr.(*net.TCPAddr).Port
	if shares, err := single.Shares(); shares || err != nil {
		t.Errorf("a single socket shares: %v, %v", shares, err)
	}
	must(t, single.Close())
	if users, err := Listening(port); err != nil || len(users) != 0 {
		t.Errorf("users of a closed socket's port: %v, %v", users, err)
	}
}
