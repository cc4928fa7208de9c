// Package proxy is the data path: it takes clients from listening sockets and
// relays them, byte for byte, to the generation that is switched in.
package proxy
