package main

import (
	"net"
	"strconv"

	"github.com/seed8fae2174/proxyd/backend"
)

// placeholderValues gives what the placeholders of a run stand for, and the port
// of its first listener that is TCP.
func placeholderValues(l backend.Launch, listeners []string, addresses map[string]net.Addr) (values map[string]string, port string) {
	values = map[string]string{"release": l.Release, "generation": strconv.FormatUint(l.ID, 10)}
	for i, name := range listeners {
		keys := []string{":" + name}
		if i == 0 {
			keys = append(keys, "") // plain {port} is the first listener's
		}
		for _, key := range keys {
			switch a := addresses[name].(type) {
			case *net.UnixAddr:
				values["socket"+key] = a.Name
			case *net.TCPAddr:
				values["address"+key], values["port"+key] = a.String(), strconv.Itoa(a.Port)
				if port == "" {
					port = strconv.Itoa(a.Port)
				}
			}
		}
	}
	return values, port
}
