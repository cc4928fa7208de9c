// Package units is what is shipped for systemd, as text: units, the polkit rule,
// and the snippets of sysusers.d and tmpfiles.d. The files beside this one are
// complete as they are, for a package that puts them below /usr/lib; proxyctl
// install writes them with the few words changed that depend on the place.
//
// It imports nothing of the project and does nothing.
package units

import (
	_ "embed"
	"fmt"
	"strings"
)

//go:embed proxyd@.service
var service string

//go:embed proxyd@.socket
var socket string

//go:embed proxyd-exec.conf
var execDriver string

//go:embed proxyd-user@.service
var userService string

//go:embed proxyd.sysusers.conf
var sysusers string

//go:embed proxyd.tmpfiles.conf
var tmpfiles string

// bin is where the shipped units look for the programs.
const bin = "/usr/bin/"

// Service is proxyd@.service, with the programs in the directory programs.
func Service(programs string) string { return strings.ReplaceAll(service, bin, programs+"/") }

// UserService is proxyd@.service for a user's own manager.
func UserService(programs string) string { return strings.ReplaceAll(userService, bin, programs+"/") }

// Socket is proxyd@.socket, which says where to listen only with a Listen.
func Socket() string { return socket }

// Listen is a drop-in of proxyd@NAME.socket that names its addresses. With
// members over 1 each is named so often, for as many sockets in a group of which
// generations can have one each, see systemd.socket(5) on ReusePort=.
func Listen(addresses []string, members int) string {
	var b strings.Builder
	b.WriteString("[Socket]\n")
	if members > 1 {
		b.WriteString("ReusePort=yes\n")
	}
	for _, a := range addresses {
		// systemd's own word for a path is the path.
		line := fmt.Sprintf("ListenStream=%s\n", strings.TrimPrefix(a, "unix:"))
		b.WriteString(strings.Repeat(line, max(members, 1)))
	}
	return b.String()
}

// ExecDriver is a drop-in of proxyd@NAME.service whose generations are its
// children.
func ExecDriver() string { return execDriver }

// Sysusers is the snippet that makes the user proxyd.
func Sysusers() string { return sysusers }

// Tmpfiles is the snippet that makes the directories.
func Tmpfiles() string { return tmpfiles }
