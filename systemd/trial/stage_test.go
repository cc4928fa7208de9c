package trial

import (
	"maps"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A staged generation outlives proxyd with its own sockets: it is still ready then,
// gets no client, and serves as soon as it is promoted, as the process that it was.
func TestAStagedGenerationOutlivesProxyd(t *testing.T) {
	overBothPaths(t, func(t *testing.T) {
		began := time.Now()
		serveGo(t)
		withoutProbation(t)
		release := "v1"
		for i, how := range []string{"restart", "kill"} {
			next := []string{"v2", "v3"}[i]
			run(t, "proxyctl", "stage", next)
			staged := mustStatus(t, "web").generation(uint64(i + 2))
			if staged.State != "ready" {
				t.Fatalf("staged is %+v", staged)
			}
			before := pids(t, "web@*")
			l := startTraffic(t, web, 4, 0)
			l.relayed.Store(over == relay)
			if how == "restart" {
				run(t, "systemctl", "restart", "proxyd@web.service")
			} else {
				old := property(t, "proxyd@web.service", "MainPID")
				pid, _ := strconv.Atoi(old)
				signal(t, pid, syscall.SIGKILL)
				await(t, "another proxyd", func() bool {
					now := property(t, "proxyd@web.service", "MainPID")
					return now != "0" && now != old
				})
			}
			st := mustServeAgain(t)
			l.runFor(50)
			mustStillBe(t, st, staged)
			if now := st.generation(staged.ID); now.State != "ready" || st.current().Release != release {
				t.Fatalf("after a %s staged is %+v, current %+v", how, now, st.current())
			}
			mustAnswer(t, web, release)
			starts := strings.Count(run(t, "proxyctl", "history"), " starting ")
			run(t, "proxyctl", "promote", strconv.FormatUint(staged.ID, 10))
			mustAnswer(t, web, next)
			mustTakeItsPath(t, "web")
			l.runFor(50)
			l.stop()
			l.check()
			mustStillBe(t, mustStatus(t, "web"), staged)
			if now := strings.Count(run(t, "proxyctl", "history"), " starting "); now != starts {
				t.Errorf("it was proven anew: %d starts, %d before", now, starts)
			}
			if after := pids(t, "web@*"); !maps.Equal(before, after) {
				t.Errorf("the generations were %v and are %v", before, after)
			}
			await(t, "the previous one to stand by", func() bool {
				st := mustStatus(t, "web")
				return st.generation(st.Previous).State == "standby"
			})
			run(t, "proxyctl", "retire")
			release = next
		}
		mustHaveSocketsBack(t, began)
	})
}
