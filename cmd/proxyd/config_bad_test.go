package main

import (
	"strings"
	"testing"
)

// badConfigs is every rule of the file, with the whole error that breaking it
// gives.
var badConfigs = []struct {
	name, text string
	want       []string
}{
	{"empty", "", []string{
		`web.toml: backend.command: missing; write command = ["PROGRAM", "ARGUMENT"], or give it after --`}},
	{"not TOML", "[backend]\ncommand = [\"web\"]\n\n[drain\n", []string{
		`web.toml:4: expected ']' to close table name`}},
	{"not TOML, value", "[backend]\ncommand = web\n", []string{
		"web.toml:2: unexpected character U+0077 'w' at start of value"}},
	{"not TOML, a key twice", "[backend]\ncommand = [\"web\"]\npath = \"auto\"\npath = \"relay\"\n", []string{
		`web.toml:4: backend.path: defined twice, first in line 3`,
	}},
	{"not TOML, a table twice", "[backend]\ncommand = [\"web\"]\n[drain]\n[drain]\n", []string{
		`web.toml:4: drain: defined twice, first in line 3`,
	}},
	{"not TOML, a control byte", "[backend]\ncommand = [\"web\"]\nrelease = \"a\x01\"\n", []string{
		`web.toml:3: basic strings cannot have control characters`,
	}},
	{"O_NONBLOCK of a socket that is not handed over", "[backend]\ncommand = [\"web\", \"{port}\"]\nnon_blocking = true\n", []string{
		`web.toml:3: backend.non_blocking: is for a program that is handed its sockets, and this one binds by itself`,
	}},
	{"two listeners of one variable", "[[listener]]\nname = \"http-1\"\naddress = \"127.0.0.1:1\"\n[[listener]]\nname = \"HTTP.1\"\naddress = \"127.0.0.1:2\"\n" +
		"[backend]\ndriver = \"systemd\"\nunit = \"web@{generation}.service\"\nsockets = \"address\"\n", []string{
		`web.toml:1: listener: "http-1" and "HTTP.1" are both PORT_HTTP_1 to a program that binds by itself; give one of them another name`,
	}},
	{"not UTF-8", "[backend]\ncommand = [\"web\"]\nrelease = \"\xff\"\n", []string{
		`web.toml:3: invalid UTF-8 character in basic string`,
	}},
	{"unknown keys", "[backend]\ncommand = [\"web\"]\ncomand = [\"web\"]\ncolour = \"red\"\n[drian]\ndeadline = \"1s\"\n[drain]\n\"max-draining\" = 3\nmax.draining = 3\n[[listener]]\nadress = \"127.0.0.1:1\"\naddress = \"127.0.0.1:1\"\n", []string{
		`web.toml:3: backend.comand: unknown key; did you mean command?`,
		`web.toml:4: backend.colour: unknown key; known here: command, dir, driver, env, family, fixed, non_blocking, path, release, scope, sockets, unit`,
		`web.toml:5: drian: unknown key; did you mean drain?`,
		`web.toml:7: drain.max: unknown key; known here: deadline, keep_previous, max_draining`,
		`web.toml:8: drain.max-draining: unknown key; did you mean max_draining?`,
		`web.toml:11: listener[0].adress: unknown key; did you mean address?`,
	}},
	{"wrong types", "drain = 3\nlistener = \"127.0.0.1:80\"\n[backend]\ncommand = \"web --port\"\nrelease = 1.0\nenv = [\"A=B\"]\ndir = true\nnon_blocking = \"yes\"\n[ready]\ninterval = 5\ntimeout = \"5\"\nsuccesses = \"one\"\ndeadline = \"-3s\"\npath = 2020-01-01\n[stop]\nsignal = 15\n[limits]\nmax_connections = 1.5\nidle_timeout = [\"1s\"]\n", []string{
		`web.toml:1: drain: must be a table, and is a whole number; write [drain]`,
		`web.toml:2: listener: must be a list, and is a string; write [[listener]]`,
		`web.toml:4: backend.command: must be a list, and is a string; write ["PROGRAM", "ARGUMENT"]`,
		`web.toml:5: backend.release: must be a string, and is a number with a fraction; write it in quotes`,
		`web.toml:6: backend.env: must be a table of strings, and is a list; write env = {NAME = "VALUE"}`,
		`web.toml:7: backend.dir: must be a string, and is true or false; write it in quotes`,
		`web.toml:8: backend.non_blocking: must be true or false, and is a string`,
		`web.toml:10: ready.interval: must be a duration, and is a whole number; write it like "30s", "10m" or "1h30m"`,
		`web.toml:11: ready.timeout: "5" is not a duration; write it like "30s", "10m" or "1h30m"`,
		`web.toml:12: ready.successes: must be a whole number, and is a string`,
		`web.toml:13: ready.deadline: "-3s" is less than nothing`,
		`web.toml:14: ready.path: must be a string, and is a date or time; write it in quotes`,
		`web.toml:16: stop.signal: must be a string, and is a whole number; write it in quotes`,
		`web.toml:18: limits.max_connections: must be a whole number, and is a number with a fraction`,
		`web.toml:19: limits.idle_timeout: must be a duration, and is a list; write it like "30s", "10m" or "1h30m"`,
	}},
	{"wrong types inside", "[[listener]]\nname = [\"x\"]\naddress = 80\n[backend]\ncommand = [\"web\",\n  \"--port\",\n  8080]\n[backend.env]\nA = 1\nB = {C = \"x\"}\n", []string{
		`web.toml:2: listener[0].name: must be a string, and is a list`,
		`web.toml:3: listener[0].address: must be a string, and is a whole number; write it in quotes`,
		`web.toml:7: backend.command[2]: must be a string, and is a whole number; write it in quotes`,
		`web.toml:9: backend.env.A: must be a string, and is a whole number; write it in quotes`,
		`web.toml:10: backend.env.B: must be a string, and is a table`,
	}},
	{"listener as one table", "[listener]\nname = \"http\"\naddress = \"127.0.0.1:80\"\n[backend]\ncommand = [\"web\"]\n", []string{
		`web.toml:1: listener: must be a list, and is a table; write [[listener]]`,
	}},
	{"a fraction too large", "[backend]\ncommand = [\"web\"]\n[limits]\nmax_connections = 1e999\n", []string{
		`web.toml:4: limits.max_connections: unable to parse float: strconv.ParseFloat: parsing "1e999": value out of range`,
	}},
	{"a number too large", "[backend]\ncommand = [\"web\"]\n[limits]\nmax_connections = 99999999999999999999\n", []string{
		`web.toml:4: limits.max_connections: decimal number is too large to fit in a 64-bit signed integer`,
	}},
	{"out of range", "[backend]\ncommand = [\"web\"]\n[ready]\ninterval = \"0s\"\ntimeout = \"0s\"\nsuccesses = 0\ndeadline = \"0s\"\n[drain]\nmax_draining = -1\n[limits]\nmax_connections = -1\nconnect_timeout = \"0s\"\n", []string{
		`web.toml:4: ready.interval: must be longer than 0s`,
		`web.toml:5: ready.timeout: must be longer than 0s`,
		`web.toml:6: ready.successes: 0 is out of range; it is from 1 to 1000`,
		`web.toml:7: ready.deadline: must be longer than 0s`,
		`web.toml:9: drain.max_draining: -1 is out of range; it is from 0 to 1000`,
		`web.toml:11: limits.max_connections: -1 is out of range; it is from 0 to 1073741824`,
		`web.toml:12: limits.connect_timeout: must be longer than 0s`,
	}},
	{"out of range above", "[backend]\ncommand = [\"web\"]\n[ready]\nsuccesses = 1001\ndeadline = \"9999999999h\"\n[drain]\nmax_draining = 1001\n[limits]\nmax_connections = 2000000000\n", []string{
		`web.toml:4: ready.successes: 1001 is out of range; it is from 1 to 1000`,
		`web.toml:5: ready.deadline: "9999999999h" is not a duration; write it like "30s", "10m" or "1h30m"`,
		`web.toml:7: drain.max_draining: 1001 is out of range; it is from 0 to 1000`,
		`web.toml:9: limits.max_connections: 2000000000 is out of range; it is from 0 to 1073741824`,
	}},
	{"none of the words", "[backend]\ncommand = [\"web\"]\ndriver = \"docker\"\nsockets = \"tcp\"\nfamily = \"ipv4\"\npath = \"Relay\"\n[ready]\ncheck = \"https\"\n", []string{
		`web.toml:3: backend.driver: "docker" is none of "exec", "systemd"`,
		`web.toml:4: backend.sockets: "tcp" is none of "activation", "address"`,
		`web.toml:5: backend.family: "ipv4" is none of "unix", "tcp"`,
		`web.toml:6: backend.path: "Relay" is none of "auto", "relay", "direct"`,
		`web.toml:8: ready.check: "https" is none of "auto", "notify", "connect", "http", "command"`,
	}},
	{"listeners", "[backend]\ncommand = [\"web\"]\n[[listener]]\nname = \"a b\"\naddress = \"localhost:80\"\n[[listener]]\nname = \"\"\naddress = \"\"\n[[listener]]\nname = \"c\"\n[[listener]]\naddress = \"unix:/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"\n[[listener]]\naddress = \"unix:/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"\n[[listener]]\naddress = \"unix:rel\"\n[[listener]]\naddress = \"::1:80\"\n[[listener]]\naddress = \"127.0.0.1:99999\"\n[[listener]]\naddress = \"unix:/a\\u0000b\"\n", []string{
		`web.toml:4: listener[0].name: bad name "a b": a name is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or a digit`,
		`web.toml:5: listener[0].address: parse address "localhost:80": not an address to listen on: the host is an IP address, names are not looked up`,
		`web.toml:7: listener[1].name: bad name "": a name is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or a digit`,
		`web.toml:8: listener[1].address: parse address "": not an address to listen on: write HOST:PORT or unix:/PATH`,
		`web.toml:9: listener[2].address: missing; write address = "127.0.0.1:8080"`,
		`web.toml:14: listener[4].address: parse address "unix:/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx": the path is 108 bytes, longer than the 107 bytes of a unix socket address`,
		`web.toml:16: listener[5].address: parse address "unix:rel": not an address to listen on: the path begins with /`,
		`web.toml:18: listener[6].address: parse address "::1:80": not an address to listen on: an IPv6 address stands in brackets, [::1]:8080`,
		`web.toml:20: listener[7].address: parse address "127.0.0.1:99999": not an address to listen on: the port is a number from 0 to 65535`,
		`web.toml:22: listener[8].address: parse address "unix:/a\x00b": not an address to listen on: the path holds a control byte`,
	}},
	{"listeners inline", "listener = [{name = \"a\", address = \"127.0.0.1:80\"},\n  {name = \"b\", address = \"127.0.0.1:80\"},\n  {name = \"-\", address = \"127.0.0.1:81\"}]\n[backend]\ncommand = [\"web\"]\n", []string{
		`web.toml:2: listener[1].address: "127.0.0.1:80" is listened on twice`,
		`web.toml:3: listener[2].name: bad name "-": a name is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or a digit`,
	}},
	{"commands", "[backend]\ncommand = []\n[ready]\ncheck = \"command\"\n", []string{
		`web.toml:2: backend.command: is empty; write command = ["PROGRAM", "ARGUMENT"], or give it after --`,
		`web.toml:3: ready.command: missing; write command = ["PROGRAM", "ARGUMENT"]`,
	}},
	{"commands, what is in them", "[backend]\ncommand = [\"\", \"a\\u0000\"]\n[ready]\ncheck = \"command\"\ncommand = []\n", []string{
		`web.toml:2: backend.command[0]: the program's name is empty`,
		`web.toml:2: backend.command[1]: holds a NUL byte`,
		`web.toml:5: ready.command: is empty; write command = ["PROGRAM", "ARGUMENT"]`,
	}},
	{"placeholders", "[backend]\ncommand = [\"web\", \"{prot}\",\n  \"{port\", \"}\", \"{ }\", \"{port:}\", \"{release:http}\", \"{{port}}\"]\ndir = \"/srv/{port}\"\nenv = {A = \"{B}\"}\n[ready]\ncheck = \"command\"\ncommand = [\"{foo}\"]\n", []string{
		`web.toml:2: backend.command[1]: unknown placeholder {prot}; known here: {release}, {generation}, {port}, {address}, {socket}; {{ and }} stand for braces`,
		`web.toml:3: backend.command[2]: "{port" holds a lone {; write {{ for a literal one`,
		`web.toml:3: backend.command[3]: "}" holds a lone }; write }} for a literal one`,
		`web.toml:3: backend.command[4]: "{ }" holds a lone {; write {{ for a literal one`,
		`web.toml:3: backend.command[5]: "{port:}" holds a lone {; write {{ for a literal one`,
		`web.toml:3: backend.command[6]: unknown placeholder {release:http}; known here: {release}, {generation}, {port}, {address}, {socket}; {{ and }} stand for braces`,
		`web.toml:4: backend.dir: unknown placeholder {port}; known here: {release}, {generation}; {{ and }} stand for braces`,
		`web.toml:5: backend.env.A: unknown placeholder {B}; known here: {release}, {generation}, {port}, {address}, {socket}; {{ and }} stand for braces`,
		`web.toml:8: ready.command[0]: unknown placeholder {foo}; known here: {release}, {generation}, {port}, {address}, {socket}; {{ and }} stand for braces`,
	}},
	{"placeholders, no such listener", "[[listener]]\nname = \"http\"\naddress = \":80\"\n[backend]\ncommand = [\"web\", \"{port:admin}\", \"{port}\"]\n", []string{
		`web.toml:5: backend.command[1]: {port:admin} names no listener; there are: http`,
	}},
	{"a listener that is not told", "[[listener]]\nname = \"http\"\naddress = \":80\"\n[[listener]]\nname = \"admin\"\naddress = \":81\"\n[backend]\ncommand = [\"web\", \"{port}\"]\n", []string{
		`web.toml:8: backend.command[1]: names {port}, so the program binds by itself, and is not told where for listener "admin"; name {port:admin}, {address:admin} or {socket:admin} as well`,
	}},
	{"several listeners and PORT", "[[listener]]\nname = \"http\"\naddress = \":80\"\n[[listener]]\nname = \"admin\"\naddress = \":81\"\n[backend]\nsockets = \"address\"\ncommand = [\"web\"]\n", []string{
		`web.toml:8: backend.sockets: "address" tells a program one port, in PORT, and there are 2 listeners; name {port:LISTENER} in the command for each`,
	}},
	{"both kinds", "[[listener]]\nname = \"http\"\naddress = \":80\"\n[backend]\ncommand = [\"web\", \"{port}\", \"{socket:http}\"]\n", []string{
		`web.toml:5: backend.command[2]: {port} and {socket:http} cannot both be: one is TCP, the other a unix socket`,
	}},
	{"family against the command", "[backend]\nfamily = \"tcp\"\ncommand = [\"web\", \"{socket}\"]\n", []string{
		`web.toml:2: backend.family: "tcp" cannot be, for backend.command[1] names {socket}; leave it out`,
	}},
	{"family against the command, unix", "[backend]\nfamily = \"unix\"\ncommand = [\"web\"]\nenv = {ADDRESS = \"{address}\"}\n", []string{
		`web.toml:2: backend.family: "unix" cannot be, for backend.env.ADDRESS names {address}; leave it out`,
	}},
	{"family unix and PORT", "[backend]\nfamily = \"unix\"\nsockets = \"address\"\ncommand = [\"web\"]\n", []string{
		`web.toml:2: backend.family: "unix" cannot be, for nothing tells the program its socket; name {socket} in the command`,
	}},
	{"ready command's address", "[[listener]]\nname = \"http\"\naddress = \":80\"\n[backend]\ncommand = [\"web\"]\n[ready]\ncheck = \"command\"\ncommand = [\"curl\", \"{address}\"]\n", []string{
		`web.toml:8: ready.command[1]: {address} is unknown: generations serve listener "http" on a unix socket; write {socket}, or family = "tcp" in [backend]`,
	}},
	{"ready command's socket", "[[listener]]\nname = \"http\"\naddress = \":80\"\n[backend]\ncommand = [\"web\", \"{port}\"]\n[ready]\ncheck = \"command\"\ncommand = [\"curl\", \"{socket:http}\"]\n", []string{
		`web.toml:8: ready.command[1]: {socket:http} is unknown: generations serve listener "http" on a TCP port; write {address} or {port}`,
	}},
	{"driver systemd", "[backend]\ndriver = \"systemd\"\ncommand = [\"web\"]\ndir = \"/\"\nenv = {A = \"b\"}\n", []string{
		`web.toml:1: backend.unit: missing, and driver "systemd" needs it; write unit = "web@{generation}.service"`,
		`web.toml:3: backend.command: is for driver "exec", and the driver is "systemd"; the unit says what runs`,
		`web.toml:4: backend.dir: is for driver "exec", and the driver is "systemd"; the unit says what runs`,
		`web.toml:5: backend.env: is for driver "exec", and the driver is "systemd"; the unit says what runs`,
	}},
	{"driver systemd, unit", "[backend]\ndriver = \"systemd\"\nunit = \"web@{port}\"\n", []string{
		`web.toml:3: backend.unit: "web@{port}" is not a service unit; it ends with .service`,
	}},
	{"driver systemd, unit characters", "[backend]\ndriver = \"systemd\"\nunit = \"../web@{release}.service\"\n", []string{
		`web.toml:3: backend.unit: "../web@{release}.service" holds a character that no unit's name has`,
	}},
	{"driver systemd, unit length", "[backend]\ndriver = \"systemd\"\nunit = \"wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww.service\"\n", []string{
		`web.toml:3: backend.unit: is 256 bytes, a unit's name has at most 255`,
	}},
	{"driver systemd, placeholders of the unit", "[backend]\ndriver = \"systemd\"\nunit = \"web@{generation}{release}.service\"\n", []string{
		`web.toml:3: backend.unit: "web@{generation}{release}.service": between two placeholders there must be a "-"; write unit = "web@{generation}.service"`,
	}},
	{"driver systemd, one unit for all", "[backend]\ndriver = \"systemd\"\nunit = \"web@v1.service\"\n", []string{
		`web.toml:3: backend.unit: "web@v1.service": all generations would be the same unit; write unit = "web@{generation}.service"`,
	}},
	{"driver systemd, scope and signal", "[backend]\ndriver = \"systemd\"\nunit = \"web@{generation}.service\"\nscope = \"mine\"\n[stop]\nsignal = \"SIGQUIT\"\n", []string{
		`web.toml:4: backend.scope: "mine" is none of "auto", "system", "user"`,
		`web.toml:6: stop.signal: is for driver "exec", and the driver is "systemd"; write KillSignal= in the unit`,
	}},
	{"fixed addresses without {fixed}", "[backend]\ndriver = \"systemd\"\nunit = \"web@{generation}.service\"\n[[backend.fixed]]\nname = \"a\"\naddress = \"127.0.0.1:1\"\n", []string{
		`web.toml:4: backend.fixed: is given, and backend.unit does not name {fixed}; write unit = "web@{fixed}.service"`,
	}},
	{"fixed addresses", "[[listener]]\naddress = \"127.0.0.1:80\"\n[backend]\ndriver = \"systemd\"\nunit = \"nginx@{fixed}.service\"\n[[backend.fixed]]\nname = \"a b\"\naddress = \"127.0.0.1:81\"\n[[backend.fixed]]\nname = \"b\"\naddress = \"127.0.0.1:81\"\n[[backend.fixed]]\nname = \"b\"\nlistener = \"admin\"\naddress = \"0.0.0.0:82\"\n", []string{
		`web.toml:6: backend.fixed: "b" has an address for listener "admin", which there is not`,
		`web.toml:7: backend.fixed[0].name: "a b" is not a name`,
		`web.toml:11: backend.fixed[1].address: "127.0.0.1:81" is a b's already`,
		`web.toml:15: backend.fixed[2].address: "0.0.0.0:82" is no address to connect to`,
	}},
	{"driver exec and unit", "[backend]\ncommand = [\"web\"]\nunit = \"web@{generation}.service\"\n", []string{
		`web.toml:3: backend.unit: is for driver "systemd", and the driver is "exec"`,
	}},
	{"environment", "[backend]\ncommand = [\"web\", \"{port}\"]\n[backend.env]\n\"A B\" = \"\"\n\"\" = \"\"\n1A = \"\"\nLISTEN_FDS = \"3\"\nNOTIFY_SOCKET = \"/x\"\nWATCHDOG_USEC = \"1\"\nPROXYD_X = \"\"\nPORT = \"80\"\nNUL = \"\\u0000\"\n\"a.b\" = \"{\"\n", []string{
		`web.toml:4: backend.env."A B": "A B" cannot name an environment variable`,
		`web.toml:5: backend.env."": "" cannot name an environment variable`,
		`web.toml:6: backend.env.1A: "1A" cannot name an environment variable`,
		`web.toml:7: backend.env.LISTEN_FDS: LISTEN_FDS is set by proxyd itself`,
		`web.toml:8: backend.env.NOTIFY_SOCKET: NOTIFY_SOCKET is set by proxyd itself`,
		`web.toml:9: backend.env.WATCHDOG_USEC: WATCHDOG_USEC is set by proxyd itself`,
		`web.toml:10: backend.env.PROXYD_X: PROXYD_X is set by proxyd itself`,
		`web.toml:11: backend.env.PORT: PORT is set by proxyd itself`,
		`web.toml:12: backend.env.NUL: holds a NUL byte`,
		`web.toml:13: backend.env."a.b": "a.b" cannot name an environment variable`,
	}},
	{"directory", "[backend]\ncommand = [\"web\"]\ndir = \"srv\"\n", []string{
		`web.toml:3: backend.dir: "srv" is not a whole path; begin it with /`,
	}},
	{"release", "[backend]\ncommand = [\"web\"]\nrelease = \"../x\"\n", []string{
		`web.toml:3: backend.release: release label "../x": byte 3 is a slash`,
	}},
	{"release, control byte", "[backend]\ncommand = [\"web\"]\nrelease = \"v1\\u001b[2J\"\n", []string{
		`web.toml:3: backend.release: release label "v1\x1b[2J": byte 3 is not printable (U+001B)`,
	}},
	{"release, empty", "[backend]\ncommand = [\"web\"]\nrelease = \"\"\n", []string{
		`web.toml:3: backend.release: a release label is empty`,
	}},
	{"ready path", "[backend]\ncommand = [\"web\"]\n[ready]\ncheck = \"http\"\npath = \"healthz\"\n", []string{
		`web.toml:5: ready.path: "healthz" does not begin with /`,
	}},
	{"ready path, spaces", "[backend]\ncommand = [\"web\"]\n[ready]\npath = \"/a\\r\\nHost: b\"\n", []string{
		`web.toml:4: ready.path: "/a\r\nHost: b" holds a space or a control byte; write it as in a URL, %20 for a space`,
	}},
	{"ready command without its check", "[backend]\ncommand = [\"web\"]\n[ready]\ncommand = [\"true\"]\n", []string{
		`web.toml:4: ready.command: is for check "command", and the check is "auto"; write check = "command"`,
	}},
	{"signal", "[backend]\ncommand = [\"web\"]\n[stop]\nsignal = \"TERM\"\n", []string{
		`web.toml:4: stop.signal: "TERM" is not the name of a signal; write it like "SIGTERM" or "SIGQUIT"`,
	}},
	{"signal, KILL", "[backend]\ncommand = [\"web\"]\n[stop]\nsignal = \"SIGKILL\"\n", []string{
		`web.toml:4: stop.signal: SIGKILL does not ask a program to end; for no time to end, write timeout = "0s"`,
	}},
	{"signal, STOP", "[backend]\ncommand = [\"web\"]\n[stop]\nsignal = \"SIGSTOP\"\n", []string{
		`web.toml:4: stop.signal: SIGSTOP does not ask a program to end; write it like "SIGTERM" or "SIGQUIT"`,
	}},
	{"direct", "[[listener]]\nname = \"http\"\naddress = \"unix:/run/x\"\n[backend]\ncommand = [\"web\"]\npath = \"direct\"\n", []string{
		`web.toml:6: backend.path: "direct" needs TCP listeners, and "http" is a unix socket; write path = "auto"`,
	}},
	{"PROXY protocol", "[[listener]]\naddress = \":80\"\nproxy_protocol = \"v3\"\naccept_proxy = [\"10.0.0.1/8\", \"home\", \"::ffff:10.0.0.0/104\", \"fe80::1%eth0\", \"10.0.0.0/33\"]\n[backend]\ncommand = [\"web\"]\n", []string{
		`web.toml:3: listener[0].proxy_protocol: "v3" is none of "v1", "v2"`,
		`web.toml:4: listener[0].accept_proxy[0]: "10.0.0.1/8" has bits behind its mask, the network is 10.0.0.0/8; write an address or a network, or "unix:" for unix clients`,
		`web.toml:4: listener[0].accept_proxy[1]: "home" is not an IP address; write an address or a network, or "unix:" for unix clients`,
		`web.toml:4: listener[0].accept_proxy[2]: "::ffff:10.0.0.0/104" is an IPv4 network in IPv6's clothes, and no client is; write an address or a network, or "unix:" for unix clients`,
		`web.toml:4: listener[0].accept_proxy[3]: "fe80::1%eth0" is not an IP address; write an address or a network, or "unix:" for unix clients`,
		`web.toml:4: listener[0].accept_proxy[4]: "10.0.0.0/33" is not a network; write an address or a network, or "unix:" for unix clients`,
	}},
	{"PROXY protocol, wrong types", "[[listener]]\naddress = \":80\"\nproxy_protocol = 2\naccept_proxy = \"10.0.0.0/8\"\n[backend]\ncommand = [\"web\"]\n", []string{
		`web.toml:3: listener[0].proxy_protocol: must be a string, and is a whole number; write it in quotes`,
		`web.toml:4: listener[0].accept_proxy: must be a list, and is a string; write ["10.0.0.0/8"]`,
	}},
	{"PROXY protocol, two of one name", "[[listener]]\naddress = \":80\"\nproxy_protocol = \"v2\"\n[[listener]]\naddress = \":81\"\n[backend]\ncommand = [\"web\"]\n", []string{
		`web.toml:4: listener[1]: says other things of the PROXY protocol than the first listener "main"; write the same proxy_protocol and accept_proxy for both, or give it another name`,
	}},
	{"PROXY protocol, direct", "[[listener]]\naddress = \":80\"\nproxy_protocol = \"v2\"\n[backend]\ncommand = [\"web\"]\npath = \"direct\"\n", []string{
		`web.toml:6: backend.path: "direct" cannot be where listener "main" speaks the PROXY protocol: nobody would write the header or read it; write path = "auto"`,
	}},
	{"direct, binds by itself", "[backend]\ncommand = [\"web\", \"{port}\"]\npath = \"direct\"\n", []string{
		`web.toml:3: backend.path: "direct" needs a program that is handed its sockets, and this one binds by itself; write path = "auto"`,
	}},
}

func TestBadConfigs(t *testing.T) {
	for _, c := range badConfigs {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, c.text, Flags{})
			if want := strings.Join(c.want, "\n"); err == nil || err.Error() != want {
				t.Fatalf("got\n%v\nwant\n%s", err, want)
			}
		})
	}
}
