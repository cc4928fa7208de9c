// Package load runs the trials that go on under load, or kill and restart again and
// again. What they do is written in package trial.
package load

import (
	"testing"

	"github.com/seed8fae2174/proxyd/systemd/trial"
)

func TestMain(m *testing.M) { trial.Main(m) }

func TestPromotesOfAGoServer(t *testing.T)          { trial.PromotesOfAGoServer(t) }
func TestPromotesOfNginx(t *testing.T)              { trial.PromotesOfNginx(t) }
func TestStartedByAClientAndRestarted(t *testing.T) { trial.StartedByAClientAndRestarted(t) }
func TestARestartLetsClientsFinish(t *testing.T)    { trial.ARestartLetsClientsFinish(t) }
func TestTheProbationOutlivesARestart(t *testing.T) { trial.TheProbationOutlivesARestart(t) }
func TestCrashesInARow(t *testing.T)                { trial.CrashesInARow(t) }
func TestKilledAtEveryStep(t *testing.T)            { trial.KilledAtEveryStep(t) }
func TestItEndsWithoutABus(t *testing.T)            { trial.ItEndsWithoutABus(t) }
