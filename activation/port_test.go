package activation

import (
	"errors"
	"maps"
	"net"
	"slices"
	"testing"
)

func TestFreePortIsOutsideOfTheEphemeralRange(t *testing.T) {
	ephemeral, reserved := readPortRanges()
	given := map[int]bool{}
	for range 200 {
		port, err := FreePort()
		must(t, err)
		if ephemeral.holds(port) || anyHolds(reserved, port) || port < politePort {
			t.Errorf("port %d, the ephemeral range is %v, reserved are %v", port, ephemeral, reserved)
		}
		if given[port] {
			t.Errorf("port %d was given twice", port)
		}
		given[port] = true
	}
	for port := range maps.Keys(given) {
		ReleasePort(port)
	}
	if len(handedOut.ports) != 0 {
		t.Errorf("still held: %v", handedOut.ports)
	}
}

func TestFreePortPassesOverWhatIsTaken(t *testing.T) {
	free, err := FreePort()
	must(t, err)
	ReleasePort(free)
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "127.0.0.9:0"} {
		l, err := net.Listen("tcp", address)
		must(t, err)
		taken := l.Addr().(*net.TCPAddr).Port
		port, err := freePort(slices.Values([]int{taken, free}))
		if port != free || err != nil {
			t.Errorf("beside %s: %d, %v, want %d", l.Addr(), port, err, free)
		}
		ReleasePort(port)
		if _, err := freePort(slices.Values([]int{taken})); !errors.Is(err, ErrNoPort) {
			t.Errorf("with nothing but %s: %v", l.Addr(), err)
		}
		l.Close()
	}
	ReservePort(free)
	if _, err := freePort(slices.Values([]int{free})); !errors.Is(err, ErrNoPort) {
		t.Errorf("a reserved port: %v", err)
	}
	ReleasePort(free)
	if port, err := freePort(slices.Values([]int{free})); port != free || err != nil {
		t.Errorf("released again: %d, %v", port, err)
	}
	ReleasePort(free)
}

func TestCandidatesInTheirOrder(t *testing.T) {
	ports := slices.Collect(candidates(portRange{2000, 65000}, []portRange{{1500, 1600}, {65535, 65535}}))
	if len(ports) != 65535-1024+1-101-1 {
		t.Fatalf("%d ports", len(ports))
	}
	polite, rest := ports[:534], ports[534:]
	low, inside := rest[:2000-1024-101], rest[2000-1024-101:]
	for _, p := range polite {
		if p <= 65000 || p == 65535 {
			t.Errorf("port %d is tried first", p)
		}
	}
	for _, p := range low {
		if p >= 2000 || 1500 <= p && p <= 1600 {
			t.Errorf("port %d is tried second", p)
		}
	}
	if len(inside) != 63001 || slices.Min(inside) != 2000 || slices.Max(inside) != 65000 {
		t.Errorf("%d ports are tried last", len(inside))
	}
	if slices.IsSorted(polite) {
		t.Error("the ports are not in a random order")
	}
}

func TestParseReserved(t *testing.T) {
	for in, want := range map[string][]portRange{
		"":                 nil,
		"\n":               nil,
		"8080\n":           {{8080, 8080}},
		"1,9148-9150,x,-1": {{1, 1}, {9148, 9150}},
	} {
		if got := parseReserved(in); !slices.Equal(got, want) {
			t.Errorf("parseReserved(%q) = %v, want %v", in, got, want)
		}
	}
}
