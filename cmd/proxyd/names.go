package main

import (
	"fmt"
	"net"

	"github.com/seed8fae2174/proxyd/activation"
)

// generationName is how a generation is spoken of: 4 (v2).
func generationName(id uint64, release string) string {
	if release == "" {
		return fmt.Sprint(id)
	}
	return fmt.Sprintf("%d (%s)", id, release)
}

// textAddress writes an address as flags and config do.
func textAddress(a net.Addr) string {
	if a.Network() == "unix" {
		return "unix:" + a.String()
	}
	return a.String()
}

func textAddresses(addresses map[string]net.Addr) map[string]string {
	text := map[string]string{}
	for name, a := range addresses {
		text[name] = textAddress(a)
	}
	return text
}

// parseAddresses is the inverse of textAddresses.
func parseAddresses(text map[string]string) (map[string]net.Addr, error) {
	addresses := map[string]net.Addr{}
	for name, t := range text {
		a, err := activation.ParseAddress(t)
		if err != nil {
			return nil, err
		}
		addresses[name] = a
	}
	return addresses, nil
}
