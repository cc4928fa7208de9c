package activation

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// listening gives a listening socket as systemd would pass it: no O_NONBLOCK.
func listening(t *testing.T, family int, sa unix.Sockaddr, v6only int) (*os.File, net.Addr) {
	t.Helper()
	f := rawSocket(t, family, unix.SOCK_STREAM, 0)
	fd := int(f.Fd())
	if family == unix.AF_INET6 {
		must(t, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, v6only))
	}
	must(t, unix.Bind(fd, sa), unix.Listen(fd, 1))
	addr, err := boundTo(fd)
	must(t, err)
	return f, addr
}

func TestInheritedTakesEveryKind(t *testing.T) {
	v6 := &unix.SockaddrInet6{Addr: [16]byte(net.IPv6loopback)}
	tcp4, addr4 := listening(t, unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}, 0)
	tcp6, addr6 := listening(t, unix.AF_INET6, v6, 1)
	dual, addrDual := listening(t, unix.AF_INET6, &unix.SockaddrInet6{}, 0)
	path := filepath.Join(t.TempDir(), "s")
	file, _ := listening(t, unix.AF_UNIX, &unix.SockaddrUnix{Name: path}, 0)
	abstract, _ := listening(t, unix.AF_UNIX, &unix.SockaddrUnix{Name: "@" + path}, 0)

	got := inheritIn(t, []*os.File{tcp4, tcp6, dual, file, abstract},
		"LISTEN_FDS=5", "LISTEN_FDNAMES=http:http:web.socket:unix_1:abstract", "LISTEN_PIDFDID=1")
	want := childAnswer{Listeners: []seen{
		{"http", "tcp", addr4.String(), "systemd", 3, true, true},
		{"http", "tcp", addr6.String(), "systemd", 4, true, true},
		{"web.socket", "tcp", addrDual.String(), "systemd", 5, true, true},
		{"unix_1", "unix", path, "systemd", 6, true, true},
		{"abstract", "unix", "@" + path, "systemd", 7, true, true},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}

func TestInheritedWithoutNames(t *testing.T) {
	f, addr := listening(t, unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}, 0)
	got := inheritIn(t, []*os.File{f}, "LISTEN_FDS=1")
	want := childAnswer{Listeners: []seen{{"main", "tcp", addr.String(), "systemd", 3, true, true}}}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}

func TestInheritedNothing(t *testing.T) {
	for _, env := range [][]string{
		{"LISTEN_PID="},
		{"LISTEN_PID=", "LISTEN_FDS=1"},
		{"LISTEN_FDS="},
		{"LISTEN_FDS=0"},
		{"LISTEN_PID=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=http", "LISTEN_PIDFDID=7"}, // meant for another
	} {
		if got := inheritIn(t, nil, env...); !reflect.DeepEqual(got, childAnswer{}) {
			t.Errorf("with %q got %+v", env, got)
		}
	}
}

func TestInheritedNamesWhatCannotBeUsed(t *testing.T) {
	good, _ := listening(t, unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}, 0)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	asFile(t, pair[1])
	plain, err := os.Create(filepath.Join(t.TempDir(), "plain"))
	must(t, err)
	t.Cleanup(func() { plain.Close() })
	files := []*os.File{
		good,
		rawSocket(t, unix.AF_INET, unix.SOCK_DGRAM, 0),
		rawSocket(t, unix.AF_UNIX, unix.SOCK_DGRAM, 0),
		rawSocket(t, unix.AF_UNIX, unix.SOCK_SEQPACKET, 0),
		rawSocket(t, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE),
		rawSocket(t, unix.AF_INET6, unix.SOCK_STREAM, 0),
		asFile(t, pair[0]),
		plain,
		good, // under a bad name
		good,
	}
	got := inheritIn(t, files, "LISTEN_FDS=11", "LISTEN_FDNAMES=http:dns:log:seq:raw:idle:conn:file:a b::gone")
	want := strings.Join([]string{
		`descriptor 4 ("dns"): a datagram socket, and proxyd carries streams: use ListenStream=, not ListenDatagram=`,
		`descriptor 5 ("log"): a datagram socket, and proxyd carries streams: use ListenStream=, not ListenDatagram=`,
		`descriptor 6 ("seq"): a sequential-packet socket, and proxyd carries streams: use ListenStream=, not ListenSequentialPacket=`,
		`descriptor 7 ("raw"): a socket of type 3, and proxyd carries streams: use ListenStream=`,
		`descriptor 8 ("idle"): a stream socket that does not listen`,
		`descriptor 9 ("conn"): a connection, not a listening socket: use Accept=no in the .socket unit`,
		fmt.Sprintf(`descriptor 10 ("file"): not a socket, but %q`, plain.Name()),
		`descriptor 11 ("a b"): bad name "a b": ` + ErrName.Error() + `; set FileDescriptorName= in the .socket unit`,
		`descriptor 12 (""): bad name "": ` + ErrName.Error() + `; set FileDescriptorName= in the .socket unit`,
	}, "\n")
	rest, ok := strings.CutPrefix(got.Error, want+"\n")
	if !ok || len(got.Listeners) != 0 || len(got.Left) != 0 {
		t.Fatalf("got\n%s\nwant\n%s", got.Error, want)
	}
	// A number that is not passed may be taken by Go's runtime before main.
	if !strings.HasPrefix(rest, `descriptor 13 ("gone"): `) {
		t.Fatalf("the missing descriptor: %s", rest)
	}
}

func TestInheritedMissingDescriptor(t *testing.T) {
	got := inheritIn(t, nil, "LISTEN_FDS=60", "LISTEN_FDNAMES="+strings.Repeat("a:", 59)+"last")
	lines := strings.Split(got.Error, "\n")
	if last := lines[len(lines)-1]; last != `descriptor 62 ("last"): is not open, though LISTEN_FDS counts it` {
		t.Fatalf("got %s", last)
	}
}

func TestInheritedRefusesBadVariables(t *testing.T) {
	for _, c := range []struct {
		env  []string
		want string
	}{
		{[]string{"LISTEN_PID=x", "LISTEN_FDS=1"}, `read LISTEN_PID: "x" is not a process id`},
		{[]string{"LISTEN_PID=-1", "LISTEN_FDS=1"}, `read LISTEN_PID: "-1" is not a process id`},
		{[]string{"LISTEN_FDS=one"}, `read LISTEN_FDS: "one" is not a number of descriptors`},
		{[]string{"LISTEN_FDS=-1"}, `read LISTEN_FDS: "-1" is not a number of descriptors`},
		{[]string{"LISTEN_FDS=2000000000"}, `read LISTEN_FDS: 2000000000 descriptors are more than this process may have (`},
		{[]string{"LISTEN_FDS=1", "LISTEN_FDNAMES=a:b"}, `read LISTEN_FDNAMES: it holds 2 names for 1 descriptors`},
		{[]string{"LISTEN_FDS=2", "LISTEN_FDNAMES="}, `read LISTEN_FDNAMES: it holds 1 names for 2 descriptors`},
	} {
		got := inheritIn(t, nil, c.env...)
		if !strings.HasPrefix(got.Error, c.want) || got.Listeners != nil || got.Left != nil {
			t.Errorf("with %q got %+v, want %s", c.env, got, c.want)
		}
	}
}

func TestPassedIsOnlyForOneProcess(t *testing.T) {
	for _, c := range []struct{ pid, want int }{{7, 2}, {8, 0}} {
		n, err := passed(map[string]string{"LISTEN_PID": "7", "LISTEN_FDS": strconv.Itoa(2)}, c.pid)
		if n != c.want || err != nil {
			t.Errorf("process %d: %d, %v, want %d", c.pid, n, err, c.want)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "web": true, "web.socket": true, "9_-.": true, strings.Repeat("a", 64): true,
		"": false, "-a": false, ".a": false, "a/b": false, "a b": false, "a:b": false, "a\n": false, "é": false,
		"a\x00": false, strings.Repeat("a", 65): false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("CheckName(%q) = %v", name, err)
		}
	}
}

// A member of a group may be a running generation's, whose accept blocks: so it
// stays, while an ordinary listener is made non-blocking.
func TestInheritedLeavesMembersAsTheyAre(t *testing.T) {
	members, err := ListenGroup("http", "127.0.0.1:0", 2)
	must(t, err)
	defer closeAll(t, members)
	single, err := Listen("http", "127.0.0.1:0")
	must(t, err)
	defer single.Close()
	all := append(slices.Clone(members), single)
	var files []*os.File
	for _, l := range all {
		must(t, unix.SetNonblock(l.FD, false))
		fd, err := unix.FcntlInt(uintptr(l.FD), unix.F_DUPFD_CLOEXEC, 3)
		must(t, err)
		files = append(files, asFile(t, fd))
	}
	got := inheritIn(t, files, "LISTEN_FDS=3", "LISTEN_FDNAMES=http:http:http")
	if got.Error != "" || len(got.Listeners) != len(all) {
		t.Fatalf("got %+v", got)
	}
	for i, l := range all {
		flags, err := unix.FcntlInt(uintptr(l.FD), unix.F_GETFL, 0)
		must(t, err)
		if nonblock := flags&unix.O_NONBLOCK != 0; nonblock != (i == 2) {
			t.Errorf("listener %d: O_NONBLOCK is %v", i, nonblock)
		}
	}
}
