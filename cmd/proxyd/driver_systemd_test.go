package main

import (
	"net"
	"os"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/seed8fae2174/proxyd/backend"
	"github.com/seed8fae2174/proxyd/systemd"
)

// A generation is what it was planned to be, whatever kind of unit the config
// names by now.
func TestAPlanOutlivesAnotherKindOfUnit(t *testing.T) {
	named, fixed := &Config{}, &Config{}
	named.Backend.Unit = "web@{generation}.service"
	fixed.Backend.Unit = "nginx@{fixed}.service"
	fixed.Backend.Fixed = []FixedConfig{{Name: "a", Address: "127.0.0.1:8001"}, {Name: "b", Address: "127.0.0.1:8002"}}
	for _, c := range []struct {
		name         string
		plan         systemdPlan
		live         *Config
		binds, takes bool // its addresses itself; some of the config's
	}{
		{"handed over, the config is of fixed ones", systemdPlan{Unit: named.Backend.Unit}, fixed, false, false},
		{"fixed, the config too", systemdPlan{Unit: fixed.Backend.Unit}, fixed, true, true},
		{"fixed, the config is of numbered ones", systemdPlan{Unit: fixed.Backend.Unit}, named, false, true},
		{"by an older proxyd", systemdPlan{}, fixed, true, true},
	} {
		got := c.plan.with(c.live)
		if got.BindsItself() != c.binds || got.Backend.namedByFixed() != c.takes {
			t.Errorf("%s: binds itself %v, takes fixed addresses %v", c.name, got.BindsItself(), got.Backend.namedByFixed())
		}
	}

	log := hclog.NewNullLogger()
	s := newGenerationSockets(t.TempDir(), []string{"http"}, nil, log)
	s.direct = newDirectPath(log)
	lost := systemdPlan{Unit: fixed.Backend.Unit}.with(named)
	if _, err := s.open(1, lost, backend.Launch{}); err == nil || !strings.Contains(err.Error(), "the config has no [[backend.fixed]] any more") {
		t.Errorf("a start whose addresses are not in the config: %v", err)
	}
	// What runs at such an address is left with its sockets.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r, err := s.reclaim(2, lost, socketNote{Addresses: map[string]string{"http": l.Addr().String()}, Fixed: "a"})
	if err != nil {
		t.Fatal(err)
	}
	k := s.adopt(2, lost, os.Getpid(), r)
	if k.fixed != "a" || len(k.handed) > 0 || len(k.ports) > 0 || k.addresses["http"].String() != l.Addr().String() {
		t.Errorf("taken over as %+v", k)
	}
}

// A generation that is started again in another unit has the environment file of
// the first, and that unit is its own no more.
func TestAGenerationMayComeBackInAnotherUnit(t *testing.T) {
	d := &systemdDriver{sockets: newGenerationSockets(t.TempDir(), nil, nil, nil), runs: map[string]*systemdRun{}}
	of := func(id uint64) *systemdRun { return &systemdRun{launch: backend.Launch{ID: id}} }
	again := of(2)
	for unit, run := range map[string]*systemdRun{"web@1.service": of(1), "web@2.service": of(2)} {
		if err := d.admit(unit, run); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.admit("app@1.service", of(3)); err == nil {
		t.Error("two generations have one environment file")
	}
	if err := d.admit("app@2.service", again); err != nil {
		t.Error(err)
	}
	if d.runs["web@2.service"] != nil || d.runs["app@2.service"] != again || d.runs["web@1.service"] == nil {
		t.Errorf("the units are %v", d.runs)
	}
}

// Nobody is told to write in the config what stands there.
func TestAUnitThatAlreadyRunsIsExplained(t *testing.T) {
	const advice = "name {generation} in backend.unit"
	for unit, want := range map[string]string{
		"web@{generation}.service": "end it yourself (systemctl stop web@1.service)",
		"web@{release}.service":    advice,
		"web@{fixed}.service":      advice,
	} {
		got := explainStart(&systemd.StartError{Unit: "web@1.service", Err: systemd.ErrRunning}, unit).Error()
		if !strings.Contains(got, want) || want != advice && strings.Contains(got, advice) {
			t.Errorf("%s: %s", unit, got)
		}
	}
}
