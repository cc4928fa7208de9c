package main

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"
)

// listenAt has the next proxyd listen at another address.
func (d *daemonUnderTest) listenAt(address string) {
	d.t.Helper()
	text, err := os.ReadFile(d.config)
	if err == nil {
		err = os.WriteFile(d.config, []byte(strings.Replace(string(text), d.address, address, 1)), 0o600)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	d.address = address
}

// proxyd is killed, and its next one is to listen at another address: the generations
// that run have sockets at the old one. They are not taken for being on the direct
// path. Clients wait for another run of the current release, and the old ones keep
// those they have.
func TestGenerationsAtAnAddressOfBefore(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "serve"), path: pathDirect})
	d.startServing()
	d.mustCtl("promote", "v2")
	d.awaitGeneration(1, "standby")
	idle := dialEcho(t, d.address)
	before := d.generation(2)
	d.kill9()
	d.listenAt(freeAddress(t))
	d.start()
	for _, c := range d.burst(20) { // none is refused, all are answered
		if answer, err := io.ReadAll(c); err != nil || !strings.Contains(string(answer), "v2 ") {
			t.Fatalf("a client of the new address got %q, %v", answer, err)
		}
	}
	d.mustBeDirect()
	if st := d.status(); st.Current != 3 || st.Previous != 1 {
		t.Fatalf("generation %d is current, %d the previous one", st.Current, st.Previous)
	}
	old := d.generation(2)
	if old.State != "draining" || old.PID != before.PID || old.InFlight != 1 || old.Path != pathRelay || !strings.Contains(old.Reason, "where no listener is any more") {
		t.Fatalf("the generation of before: %+v", old)
	}
	for _, want := range []string{"stranded", "moved"} {
		if out := d.mustCtl("history"); !strings.Contains(out, want) {
			t.Errorf("history does not tell %q:\n%s", want, out)
		}
	}
	d.awaitGeneration(1, "stopped") // which stood by, and has no client
	idle.say(t, "hi", "v2 hi")
	d.kill9() // what is stranded stays so
	d.start()
	d.awaitState("serving")
	if st := d.status(); st.Current != 3 {
		t.Fatalf("generation %d is current", st.Current)
	}
	d.mustBeDirect()
	d.mustAnswer("v2")
	idle.say(t, "hi", "v2 hi")
	idle.conn.Close()
	d.awaitGeneration(2, "stopped")
	d.mustCtl("revert") // the previous one is started again, with sockets of today
	d.mustAnswer("v1")
	d.mustBeDirect()
}

// As at another address, but the release cannot end before it is killed: clients do
// not wait for that.
func TestAGenerationOfBeforeThatDoesNotEnd(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "stubborn"), path: pathDirect, toml: "[stop]\ntimeout = \"1h\"\n"})
	d.startServing()
	d.kill9()
	d.listenAt(freeAddress(t))
	d.start()
	d.mustAnswer("v1")
	d.awaitGeneration(1, "stopping")
	if st := d.status(); st.Current != 2 {
		t.Fatalf("generation %d is current", st.Current)
	}
	d.mustCtl("stop", "1", "--kill")
	d.awaitGeneration(1, "stopped")
	text, err := os.ReadFile(d.config)
	if err == nil {
		err = os.WriteFile(d.config, []byte(strings.Replace(string(text), "1h", "1s", 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	d.mustCtl("reload") // so that the other one can be ended
}

func TestWhichSocketGoesBefore(t *testing.T) {
	for _, c := range []struct {
		one, other string
		want       bool
	}{
		{"127.0.0.1", "0.0.0.0", true}, {"0.0.0.0", "127.0.0.1", false}, {"127.0.0.1", "::", true}, {"::1", "::", true},
		{"0.0.0.0", "::", true}, {"::", "0.0.0.0", false}, {"::", "::1", false}, {"127.0.0.1", "127.0.0.2", false},
	} {
		if got := goesBefore(net.ParseIP(c.one), net.ParseIP(c.other)); got != c.want {
			t.Errorf("%s before %s: %v", c.one, c.other, got)
		}
	}
}

// There is one listener more by now, of which a generation on the relay that runs
// knows nothing: another run of its release, with an address for each, takes its place.
func TestAGenerationOfBeforeAListener(t *testing.T) {
	d := newDaemon(t, setup{command: self(t, "serve"), path: pathRelay, toml: "[ready]\ncheck = \"command\"\ncommand = [\"true\"]\n"}) // it takes the first socket only
	d.startServing()
	d.kill9()
	text, err := os.ReadFile(d.config)
	if err != nil {
		t.Fatal(err)
	}
	more := strings.Replace(string(text), "[backend]", "[[listener]]\nname = \"admin\"\naddress = \""+freeAddress(t)+"\"\n\n[backend]", 1)
	if err := os.WriteFile(d.config, []byte(more), 0o600); err != nil {
		t.Fatal(err)
	}
	d.start()
	d.mustAnswer("v1")
	d.awaitGeneration(1, "stopped")
	if st := d.status(); st.Current != 2 || !strings.Contains(d.generation(1).Reason, `a listener "admin"`) {
		t.Errorf("generation %d is current; the first: %+v", st.Current, d.generation(1))
	}
}
