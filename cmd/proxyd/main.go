// Proxyd is a thin layer-4 front-end for one service: it holds the service's
// listening sockets, starts each new version of it beside the old one, switches
// new connections in one step, and lets the old one finish what it has begun.
package main

import (
	"os"

	"github.com/seed8fae2174/proxyd/activation"
	"github.com/seed8fae2174/proxyd/backend/process"
)

func main() {
	process.LaunchIfAsked() // does not come back where this is a generation's first moment
	activation.HoldIfAsked()
	if err := newCommand().Execute(); err != nil {
		fail(err)
		os.Exit(1)
	}
}
