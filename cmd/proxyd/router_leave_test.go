package main

import (
	"net"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/proxy"
)

// Where generations outlive proxyd, its end sends no new connection to the relay,
// not for a moment; what was held stays held.
func TestLeavingSteersNobodyAway(t *testing.T) {
	members, err := activation.ListenGroup("http", "127.0.0.1:0", 3)
	if err != nil {
		t.Fatal(err)
	}
	defer closeOwn(members)
	listeners := []proxy.Listener{}
	fds := []int{}
	for i, m := range members {
		listeners = append(listeners, proxy.Listener{Name: "http", FD: m.FD, Member: i > 0})
		fds = append(fds, m.FD)
	}
	for _, held := range []bool{false, true} {
		p, err := proxy.New(proxy.Config{Listeners: listeners})
		if err != nil {
			t.Fatal(err)
		}
		direct := newDirectPath(hclog.NewNullLogger())
		direct.switched = func(uint64, int) {}
		direct.direct, err = proxy.NewDirect(proxy.DirectConfig{Proxy: p,
			Groups: []proxy.Group{{Name: "http", Address: members[0].Addr.(*net.TCPAddr), Members: fds}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := direct.direct.Lend(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		r := newRouter(p, direct)
		if err := r.Open(1, map[string]net.Addr{"http": members[0].Addr}); err != nil {
			t.Fatal(err)
		}
		r.Switch(1)
		want := uint64(1)
		if held {
			r.Hold()
			want = 0
		}
		r.Leave()
		if got := direct.direct.Steered(); got != want {
			t.Errorf("held %v: new connections go to %d, not %d", held, got, want)
		}
		<-r.Empty()
		if got := direct.direct.Steered(); got != want {
			t.Errorf("held %v: in the end new connections go to %d, not %d", held, got, want)
		}
		direct.close()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}
